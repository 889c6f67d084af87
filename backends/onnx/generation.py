"""One answer by onnxruntime-genai: from the tokens of a prompt to the events of a stream. Runs in the worker."""

from __future__ import annotations

from collections.abc import Generator, Sequence, Set
from dataclasses import dataclass

import numpy

from ...core.answer import FinishReason
from ...core.failure import AttemptError, FailureKind
from ..chat.output import OutputText, Pending
from ..process.engine import Parcel, RunningCall
from ..process.frames import JsonObject
from .genai_native import GenAiError, Generation, Logits, Model, generation
from .vocabulary import TokenizerVocabulary, TokenText


@dataclass(frozen=True, slots=True)
class Writer:
    """A loaded model and what it takes to read its tokens. ``ends`` are those that end a turn."""

    name: str
    model: Model
    vocabulary: TokenizerVocabulary
    ends: Set[int]
    context_tokens: int
    top_k: int

    def write(self, prompt: Sequence[int], call: JsonObject, running: RunningCall) -> Generator[Parcel, None, None]:
        """Events with ``text``, ``tokens`` and perhaps ``logprobs``, then one with ``finish``; none once cancelled."""
        limit = min(call["max_output_tokens"], self.context_tokens - len(prompt))
        try:
            with generation(
                self.model,
                length=len(prompt) + limit,
                temperature=call["temperature"],
                top_p=call["top_p"],
                top_k=self.top_k,
                seed=call["seed"],
            ) as answer:
                running.when_cancelled(answer.stop)
                answer.read(prompt)
                yield from self._events(answer, prompt, limit, call, running)
        except GenAiError:
            if running.cancelled:
                return
            sentence = f"model {self.name!r} failed in one of its operators"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None

    def _events(
        self, answer: Generation, prompt: Sequence[int], limit: int, call: JsonObject, running: RunningCall
    ) -> Generator[Parcel, None, None]:
        output, pending = OutputText(call["stop"]), Pending()
        texts = TokenText(self.vocabulary, prompt[-1])
        generated = 0
        reason = FinishReason.LENGTH
        while generated < limit:
            if running.cancelled:
                return
            logits = None if call["logprobs"] is None else answer.logits()
            token = answer.next()
            if token in self.ends:
                reason = FinishReason.STOP
                break
            generated += 1
            pending.tokens += 1
            if logits is not None:
                pending.logprobs.append(_logprobs(texts, logits, token, call["logprobs"]))
            text = output.add(texts.add(token).encode())
            if output.stopped:
                pending.cut_to(text)
                reason = FinishReason.STOP
            if text:
                yield pending.take(text)
            if output.stopped:
                break
        if rest := output.add(texts.finish().encode()) + output.finish():
            yield pending.take(rest)
        yield Parcel({"finish": reason, "prompt_tokens": len(prompt), "output_tokens": generated})


def _logprobs(texts: TokenText, logits: Logits, token: int, top: int) -> list[object]:
    """``[text, log-probability, [[text, log-probability], …]]`` of a token and of the ``top`` likeliest, best first.

    By the model's own distribution, before temperature, top-k and top-p.
    """
    values = logits - logits.max()
    values -= numpy.log(numpy.exp(values).sum())
    likeliest = numpy.argpartition(-values, top - 1)[:top] if 0 < top < values.size else numpy.arange(values.size)[:top]
    best = sorted(likeliest.tolist(), key=lambda other: -values[other])
    return [texts.piece(token), float(values[token]), [[texts.piece(other), float(values[other])] for other in best]]
