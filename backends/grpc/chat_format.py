"""From a conversation to one text, for services that take a prompt and know no roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from ...core.content import Message, Role

TEXT = "{text}"
"""Where the turn's text goes."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How each turn is written. A text that holds a model's own marks is not told apart from them."""

    system: Annotated[str, "a system turn; `{text}` stands for its text"] = TEXT + "\n\n"
    user: Annotated[str, "a user's turn"] = TEXT + "\n\n"
    assistant: Annotated[str, "an assistant's turn"] = TEXT + "\n\n"
    answer: Annotated[str, "what follows the last turn, so that the model answers"] = ""

    def prompt(self, messages: Sequence[Message]) -> str:
        """The conversation as the model reads it. A last turn of the assistant is left open, to be continued."""
        written = [self._turn(message) for message in messages]
        if messages and messages[-1].role is Role.ASSISTANT:
            before, _, _ = self.assistant.partition(TEXT)
            written[-1] = before + messages[-1].text
        else:
            written.append(self.answer)
        return "".join(written)

    def unfit(self) -> Iterator[str]:
        """The fields that have no single place for the text."""
        for name in ("system", "user", "assistant"):
            if getattr(self, name).count(TEXT) != 1:
                yield name

    def _turn(self, message: Message) -> str:
        formats = {Role.SYSTEM: self.system, Role.USER: self.user, Role.ASSISTANT: self.assistant}
        return formats[message.role].replace(TEXT, message.text)


ChatFormatName = Literal["plain", "chatml", "llama3", "gemma"]

_LLAMA3_END = TEXT + "<|eot_id|>"
_LLAMA3_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_GEMMA_USER = "<start_of_turn>user\n" + TEXT + "<end_of_turn>\n"

_NAMED: dict[ChatFormatName, ChatFormat] = {
    "plain": ChatFormat(),
    "chatml": ChatFormat(
        system="<|im_start|>system\n" + TEXT + "<|im_end|>\n",
        user="<|im_start|>user\n" + TEXT + "<|im_end|>\n",
        assistant="<|im_start|>assistant\n" + TEXT + "<|im_end|>\n",
        answer="<|im_start|>assistant\n",
    ),
    "llama3": ChatFormat(
        system="<|start_header_id|>system<|end_header_id|>\n\n" + _LLAMA3_END,
        user="<|start_header_id|>user<|end_header_id|>\n\n" + _LLAMA3_END,
        assistant=_LLAMA3_ANSWER + _LLAMA3_END,
        answer=_LLAMA3_ANSWER,
    ),
    # Gemma has no system turn; it reads one as the user's.
    "gemma": ChatFormat(
        system=_GEMMA_USER,
        user=_GEMMA_USER,
        assistant="<start_of_turn>model\n" + TEXT + "<end_of_turn>\n",
        answer="<start_of_turn>model\n",
    ),
}


def chat_format(written: ChatFormatName | ChatFormat) -> ChatFormat:
    """The format of this name, or the one written out."""
    return written if isinstance(written, ChatFormat) else _NAMED[written]
