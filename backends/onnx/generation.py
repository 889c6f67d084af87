"""One answer by onnxruntime-genai: from the tokens of a prompt to the events of a stream. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass

from ...core.failure import AttemptError, FailureKind
from ..chat.logprobs import logprobs
from ..chat.output import Transcript
from ..chat.prompt import Prompt
from ..process.engine import Events, Parcel, RunningCall
from ..process.frames import JsonObject
from .genai_native import GenAiError, Generation, Model, generation
from .guide import Guide, Guides
from .vocabulary import TokenizerVocabulary, TokenText


@dataclass(frozen=True, slots=True)
class Writer:
    """A loaded model and what it takes to read its tokens. ``ends`` are those that end a turn.

    Of a prompt ``at_once`` tokens are read together.
    """

    name: str
    model: Model
    vocabulary: TokenizerVocabulary
    guides: Guides
    ends: Set[int]
    context_tokens: int
    top_k: int
    at_once: int

    def write(self, prompt: Prompt, call: JsonObject, running: RunningCall) -> Events:
        """Events with ``text``, ``tokens`` and perhaps ``logprobs``, then one with ``finish``; none once cancelled."""
        try:
            if call["temperature"] <= 0.0 and prompt.begun:
                guide = self._guide(call, "")
                with self._reading(prompt.head, len(prompt.begun.encode()), call, guide, running) as answer:
                    begun = self._catch_up(answer, prompt.begun)
                    if begun is not None:
                        return (yield from self._events(answer, begun, prompt, call, running))
            with self._reading(prompt.tokens, 0, call, self._guide(call, prompt.begun), running) as answer:
                return (yield from self._events(answer, _Said("", None), prompt, call, running))
        except GenAiError:
            if running.cancelled:
                return None
            sentence = f"model {self.name!r} failed in one of its operators"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None

    def _guide(self, call: JsonObject, begun: str) -> Guide | None:
        if call["response_format"] is None:
            return None
        return self.guides.guide(call["response_format"], self.vocabulary.tokenise(begun, control=False))

    @contextmanager
    def _reading(
        self, tokens: Sequence[int], more: int, call: JsonObject, guide: Guide | None, running: RunningCall
    ) -> Iterator[_Answer]:
        """An answer to these tokens, with room for so many more before what is asked for."""
        length = min(self.context_tokens, len(tokens) + more + call["max_output_tokens"])
        with generation(
            self.model,
            length=length,
            temperature=call["temperature"],
            top_p=call["top_p"],
            top_k=self.top_k,
            seed=call["seed"],
        ) as made:
            running.when_cancelled(made.stop)
            for start in range(0, len(tokens), self.at_once):
                made.read(tokens[start : start + self.at_once])
            texts, room = TokenText(self.vocabulary, tokens[-1]), self.context_tokens - len(tokens)
            yield _Answer(made, guide, self.ends, texts, room, call["logprobs"])

    def _catch_up(self, answer: _Answer, begun: str) -> _Said | None:
        """Write an answer that has begun once more, so that greedy decoding goes on exactly as it did.

        Returns how the model's last token goes beyond the cut, which may lie within a token; None where the model would
        not have written this. The tokens of a text are not always those that it was written with, so only writing them
        shows; what another model wrote is soon told by it.
        """
        said = ""
        while said != begun:
            token = answer.say() if answer.room else None
            if token is None:
                return None
            said += token.text
            if said.startswith(begun):
                return token.rest(len(said) - len(begun))
            if not begun.startswith(said):
                return None
        return _Said("", None)

    def _events(self, answer: _Answer, begun: _Said, prompt: Prompt, call: JsonObject, running: RunningCall) -> Events:
        transcript = Transcript(call["stop"], min(call["max_output_tokens"], answer.room + bool(begun.text)))
        if begun.text:
            yield from transcript.add(begun.text.encode(), begun.logprobs)
        while not transcript.full:
            if running.cancelled:
                return None
            said = answer.say()
            if said is None:
                transcript.end()
                break
            yield from transcript.add(said.text.encode(), said.logprobs)
            if answer.complete:
                transcript.end()
                break
        held = answer.texts.whole() if transcript.cut else answer.texts.finish()
        yield from transcript.rest(held.encode())
        return Parcel(transcript.finish(len(prompt.tokens)))


@dataclass(frozen=True, slots=True, repr=False)
class _Said:
    """What one token adds to the text, and how likely it was where that is asked for."""

    text: str
    logprobs: list[object] | None

    def rest(self, length: int) -> _Said:
        """Its last characters alone."""
        text = self.text[len(self.text) - length :]
        return _Said(text, None if self.logprobs is None else [text, *self.logprobs[1:]])


@dataclass(slots=True)
class _Answer:
    """What is being made, token by token: ``texts`` tells their text, ``room`` is how many more fit into the context.

    ``top``: of how many of the likeliest the log-probabilities are told, where they are asked for.
    """

    made: Generation
    guide: Guide | None
    ends: Set[int]
    texts: TokenText
    room: int
    top: int | None

    @property
    def complete(self) -> bool:
        """Whether its format lets nothing more come."""
        return self.guide is not None and self.guide.complete

    def say(self) -> _Said | None:
        """The next token; None where the model ends its turn."""
        self.room -= 1
        logits = None if self.top is None and self.guide is None else self.made.logits()
        if self.guide is not None and logits is not None:
            self.made.prefer(self.guide.narrowed(logits))
        token = self.made.next()
        if token in self.ends:
            return None
        if self.guide is not None:
            self.guide.take(token)
        likely = None if logits is None or self.top is None else logprobs(logits, token, self.top, self.texts.piece)
        return _Said(self.texts.add(token), likely)
