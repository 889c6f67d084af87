"""The text of a streamed answer as it grows: what backends sent of it, and what of that was shown."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.answer import Delta, TokenLogprob
from .stop_sequences import StopSequences


class Text:
    """One answer's text, across backends that continue one another. ``stop`` are the sequences that end it."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = StopSequences(stop)
        self._sent: list[str] = []
        self._shown: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.tokens = 0

    def take(self, delta: Delta) -> str:
        """Add to it; returns what may be shown now."""
        self.tokens += delta.tokens
        self._sent.append(delta.text)
        if delta.logprobs:
            self.logprobs += delta.logprobs
        text = self._stop.push(delta.text)
        self._shown.append(text)
        return text

    def end(self) -> str:
        """The backend ended the answer; returns what was still held back."""
        held = "" if self._stop.reached else self._stop.flush()
        self._shown.append(held)
        return held

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has ended the answer."""
        return self._stop.reached

    @property
    def sent(self) -> str:
        """All that backends sent: what another has to continue."""
        return "".join(self._sent)

    @property
    def shown(self) -> str:
        """What may be shown of it."""
        return "".join(self._shown)
