"""How fast a queue is replayed: gently at first, faster while it goes well."""

from __future__ import annotations

import random

START_RATE = 1.0
"""Sends a second at first."""
HIGHEST_RATE = 20.0

_GROWTH = 1.25
_FALL = 0.5


class Pacer:
    """Says when the next send may start. Times are seconds on the event loop's clock; rates are sends a second."""

    def __init__(
        self, random_source: random.Random, start_rate: float = START_RATE, highest_rate: float = HIGHEST_RATE
    ) -> None:
        self._random = random_source
        self._start_rate = start_rate
        self._highest_rate = highest_rate
        self._rate = start_rate
        self._next = 0.0

    def restart(self, now: float) -> None:
        """Begin gently again, at a moment that others, woken by the same event, do not share."""
        self._rate = self._start_rate
        self._next = now + self._random.random() / self._start_rate

    def turn(self, now: float) -> float:
        """The seconds until the next send; that send is then taken to happen."""
        starts = max(now, self._next)
        self._next = starts + self._random.uniform(0.8, 1.2) / self._rate
        return starts - now

    def went_well(self) -> None:
        """An answer came."""
        self._rate = min(self._highest_rate, self._rate * _GROWTH)

    def went_badly(self) -> None:
        """A send got no answer."""
        self._rate = max(self._start_rate, self._rate * _FALL)
