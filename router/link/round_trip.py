"""How long an endpoint takes to answer a connection, and how long its silence may last."""

from __future__ import annotations

SHORTEST_WINDOW = 1.0
LONGEST_WINDOW = 3.0
"""Seconds in which an answer must come, at the least and at the most."""

SHORTEST_SILENCE = 0.5
"""Seconds of silence after which it is worth asking."""


class RoundTrip:
    """Mean and deviation of the round trip, by TCP's own estimator (RFC 6298), and the patience that follows."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self.deviation = 0.0

    def observe(self, seconds: float) -> None:
        """A connection stood after so many seconds."""
        if self.mean is None:
            self.mean, self.deviation = seconds, seconds / 2.0
            return
        self.deviation = 0.75 * self.deviation + 0.25 * abs(self.mean - seconds)
        self.mean = 0.875 * self.mean + 0.125 * seconds

    def window(self) -> float:
        """How long to wait for an answer before the endpoint counts as silent."""
        if self.mean is None:
            return SHORTEST_WINDOW
        return min(max(SHORTEST_WINDOW, self.mean + 4.0 * self.deviation), LONGEST_WINDOW)

    def silence(self) -> float:
        """How long calls under way may be silent before somebody asks."""
        return max(SHORTEST_SILENCE, self.mean or 0.0)
