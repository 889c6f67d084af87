"""The model behind the servers here: it counts, so that every answer is known, and fails where it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

CONTEXT = 4096
BREAKING = "break-here"
LASTING = "take-your-time"
WORDS = 512


class FullError(Exception):
    """There is no room."""


class TooLongError(Exception):
    """The prompt is longer than the context."""


class BrokenError(Exception):
    """The engine failed; the text quotes the prompt, as servers do."""


@dataclass
class Counting:
    """Counts from where it was left, a word each ``every`` seconds, for ``room`` calls at once."""

    every: float = 0.002
    room: int = 1000
    full: bool = False
    running: int = 0

    async def words(
        self, prompt: str, limit: int, *, begun: str = "", stop: Sequence[str] = (), form: str = ""
    ) -> AsyncIterator[tuple[str, str | None]]:
        """Each piece of the answer, and with the last one why it ended."""
        if self.full or self.running >= self.room:
            raise FullError
        if len(prompt.split()) > CONTEXT:
            raise TooLongError
        self.running += 1
        try:
            pieces, reason = _answer(limit, begun, stop, form)
            for number, piece in enumerate(pieces, start=1):
                await asyncio.sleep(0.05 if LASTING in prompt else self.every)
                if BREAKING in prompt and number == 3:
                    raise BrokenError(prompt)
                yield piece, reason if number == len(pieces) else None
        finally:
            self.running -= 1


def _answer(limit: int, begun: str, stop: Sequence[str], form: str) -> tuple[list[str], str]:
    if form:
        return [form], "stop"
    first = int(begun.split()[-1]) + 1 if begun.split() else 1
    whole = [f"{number} " for number in range(first, WORDS + 1)]
    pieces, reason = (whole[:limit], "length") if limit < len(whole) else (whole, "stop")
    text = "".join(pieces)
    cut = min((text.index(each) for each in stop if each in text), default=None)
    if cut is None:
        return pieces, reason
    kept: list[str] = []
    for piece in pieces:
        kept.append(piece[: max(0, cut)])
        cut -= len(piece)
        if cut <= 0:
            break
    return kept, "stop"


def vector(text: str) -> list[float]:
    """A vector that differs from text to text."""
    return [float(len(text)), float(sum(text.encode()) % 97), 1.0]
