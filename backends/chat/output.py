"""From the bytes of tokens to the events that show them: whole characters, and nothing of a stop sequence."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...core.answer import FinishReason
from ..process.engine import Parcel
from ..process.frames import JsonObject


class OutputText:
    """Holds back what may yet turn out to be part of a character or of a stop sequence.

    Invalid bytes become U+FFFD. ``stopped`` is True once a stop sequence is complete; nothing of it, and nothing after
    it, is ever given out.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def add(self, piece: bytes) -> str:
        """One token's bytes; returns what may be shown now."""
        return self._release(self._decoder.decode(piece))

    def cut(self) -> None:
        """More tokens would have come: forget the bytes of a character that lacks the rest of them."""
        self._decoder.reset()

    def finish(self) -> str:
        """No more tokens will come; returns the rest."""
        rest = self._release(self._decoder.decode(b"", final=True))
        if self.stopped:
            return rest
        rest, self._held = rest + self._held, ""
        return rest

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


@dataclass(slots=True)
class Pending:
    """Tokens that have been generated and whose text has not been shown."""

    tokens: int = 0
    logprobs: list[list[object]] = field(default_factory=list)

    def take(self, text: str) -> Parcel:
        """The event that shows ``text``, which these tokens stand for."""
        fields: JsonObject = {"text": text, "tokens": self.tokens}
        if self.logprobs:
            fields["logprobs"] = self.logprobs
        self.tokens, self.logprobs = 0, []
        return Parcel(fields)

    def cut_to(self, text: str) -> None:
        """Forget the log-probabilities of tokens that only a stop sequence was made of."""
        shown = 0
        kept = []
        for entry in self.logprobs:
            if shown >= len(text):
                break
            kept.append(entry)
            shown += len(str(entry[0]))
        self.logprobs = kept


class Transcript:
    """One answer as it is written, of at most ``limit`` tokens: the events that show it, their count, why it ended."""

    def __init__(self, stops: Sequence[str], limit: int) -> None:
        self._limit = limit
        self._output = OutputText(stops)
        self._pending = Pending()
        self._tokens = 0
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether nothing more is to be written: the limit is reached, or a stop sequence complete."""
        return self._tokens >= self._limit or self._output.stopped

    @property
    def cut(self) -> bool:
        """Whether more would come: by what is written so far, only the limit ends it."""
        return not (self._ended or self._output.stopped)

    def add(self, piece: bytes, logprobs: list[object] | None) -> Iterator[Parcel]:
        """Write one token; the event that shows what may be shown by now, if that is anything."""
        self._tokens += 1
        self._pending.tokens += 1
        if logprobs is not None:
            self._pending.logprobs.append(logprobs)
        text = self._output.add(piece)
        if self._output.stopped:
            self._pending.cut_to(text)
        if text:
            yield self._pending.take(text)

    def end(self) -> None:
        """The model says that it is done."""
        self._ended = True

    def rest(self, piece: bytes = b"") -> Iterator[Parcel]:
        """No more tokens will come; the event that shows this and what was held back, if that is anything.

        A character that the limit cuts is not shown, so that the text can be continued exactly.
        """
        shown = self._output.add(piece)
        if self.cut:
            self._output.cut()
        if text := shown + self._output.finish():
            yield self._pending.take(text)

    def finish(self, prompt_tokens: int) -> JsonObject:
        """The fields of the last event."""
        reason = FinishReason.LENGTH if self.cut else FinishReason.STOP
        return {"finish": reason, "prompt_tokens": prompt_tokens, "output_tokens": self._tokens}


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
