"""From messages to the tokens of a prompt, so that no text of a message becomes a control token.

A rendered conversation is tokenised as a whole, because tok(a) + tok(b) is not tok(a + b); and control tokens in it
count, because the template writes them as text. So whoever writes ``<|im_end|>`` into a message would end their turn
and speak as the system. Therefore control tokens in messages are replaced, before rendering, by marks that cannot be
guessed. Where there were any, the rendered text is cut at the control tokens that are left, which are the template's.
Tokenisers treat what lies between control tokens apart anyway, so that cutting there changes no token. In each piece
the marks become the original text again, which is tokenised as plain text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from ...core.failure import AttemptError, FailureKind
from .template import ChatTemplate

_LONGEST = 4 << 20
"""So many characters are tokenised: some seconds' work, and more than the contexts of models on a device hold."""


class Vocabulary(Protocol):
    """What a prompt needs to know of a model's tokens."""

    @property
    def begins_with(self) -> int | None:
        """The token that every prompt begins with, if there is one."""

    @property
    def control_texts(self) -> Set[str]:
        """The texts of the control tokens."""

    def tokenise(self, text: str, *, control: bool) -> list[int]:
        """The tokens of a text. With ``control``, control tokens written out in it become themselves."""


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """A prompt's ``tokens``; where the answer has begun, its text, and the tokens of the ``head`` before it."""

    tokens: list[int]
    head: list[int]
    begun: str = ""

    def __repr__(self) -> str:
        return f"Prompt({len(self.tokens)} tokens)"


class PromptWriter:
    """Writes prompts for one model."""

    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template
        longest_first = sorted(vocabulary.control_texts, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def write(self, messages: Sequence[Mapping[str, str]], *, continues: bool) -> Prompt:
        """The prompt. With ``continues``, the last message begins the answer; the prompt ends within it.

        Raises CONTEXT_LENGTH for one so long that it is not tokenised.
        """
        marks = _Marks(self._control)
        safe = [{**message, "content": marks.hide(message["content"])} for message in messages]
        begun = safe.pop()["content"] if continues else ""
        rendered = self._template.render(safe)
        if (length := len(rendered) + len(begun)) > _LONGEST:
            sentence = f"the prompt has {length:,} characters, and {_LONGEST:,} are the most that are tokenised here"
            raise AttemptError(FailureKind.CONTEXT_LENGTH, sentence)
        head = self._tokens(rendered, marks)
        if not begun:
            return Prompt(head, head)
        return Prompt(self._tokens(rendered + begun, marks), head, marks.reveal(begun))

    def _tokens(self, text: str, marks: _Marks) -> list[int]:
        tokens = self._pieces(text, marks) if marks else self._vocabulary.tokenise(text, control=True)
        if self._vocabulary.begins_with is not None and tokens[:1] != [self._vocabulary.begins_with]:
            tokens.insert(0, self._vocabulary.begins_with)
        return tokens

    def _pieces(self, text: str, marks: _Marks) -> list[int]:
        tokens: list[int] = []
        at = 0
        for control in self._control.finditer(text):
            tokens += self._vocabulary.tokenise(marks.reveal(text[at : control.start()]), control=False)
            tokens += self._vocabulary.tokenise(control[0], control=True)
            at = control.end()
        return tokens + self._vocabulary.tokenise(marks.reveal(text[at:]), control=False)


class _Marks:
    """Stand-ins for the control tokens' texts in one prompt's messages. False when there are none."""

    def __init__(self, control: re.Pattern[str]) -> None:
        self._control = control
        self._secret = secrets.token_hex(16)
        self._hidden: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._hidden)

    def hide(self, text: str) -> str:
        return self._control.sub(self._mark, text)

    def reveal(self, text: str) -> str:
        return re.sub(f"x{self._secret}x([0-9]+)x", lambda mark: self._hidden[int(mark[1])], text)

    def _mark(self, found: re.Match[str]) -> str:
        self._hidden.append(found[0])
        return f"x{self._secret}x{len(self._hidden) - 1}x"
