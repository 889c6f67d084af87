"""Holds text back while it may be the beginning of a stop sequence, across tokens and seams."""

from __future__ import annotations

from collections.abc import Sequence


class StopSequences:
    """Passes text on up to the first stop sequence, which is never shown."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequences)
        self._held = ""
        self.reached = False
        """Whether a stop sequence was found: the answer has ended."""

    def push(self, text: str) -> str:
        """Take more of the answer; returns what may be shown now."""
        if not self._sequences:
            return text
        text = self._held + text
        cut = min((at for at in map(text.find, self._sequences) if at >= 0), default=None)
        if cut is not None:
            self.reached = True
            self._held = ""
            return text[:cut]
        keep = max(_overlap(text, sequence) for sequence in self._sequences)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The answer has ended; returns what was held back, which was no stop sequence."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, sequence: str) -> int:
    """The length of the longest end of ``text``, which does not hold ``sequence`` whole, that begins it."""
    longest = min(len(text), len(sequence))
    return next(n for n in range(longest, -1, -1) if text.endswith(sequence[:n]))
