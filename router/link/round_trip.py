"""How long an endpoint takes to answer a connection, and how long its silence may last."""

from __future__ import annotations

from ..snapshot import JsonValue, number, table

SHORTEST_WINDOW = 1.0
LONGEST_WINDOW = 3.0
"""Seconds in which an answer must come, at the least and at the most."""

SHORTEST_SILENCE = 0.5
"""Seconds of silence after which it is worth asking."""

_LONGEST = 3600.0
"""Seconds beyond which a stored round trip is none."""


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

    def snapshot(self) -> JsonValue:
        """Both, in seconds; ``None`` before the first observation."""
        return None if self.mean is None else {"mean": self.mean, "deviation": self.deviation}

    def restore(self, value: JsonValue) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        if value is not None:
            stored = table(value)
            mean = number(stored, "mean", 0.0, _LONGEST)
            self.deviation, self.mean = number(stored, "deviation", 0.0, _LONGEST), mean

    def window(self) -> float:
        """How long to wait for an answer before the endpoint counts as silent."""
        if self.mean is None:
            return SHORTEST_WINDOW
        return min(max(SHORTEST_WINDOW, self.mean + 4.0 * self.deviation), LONGEST_WINDOW)

    def silence(self) -> float:
        """How long calls under way may be silent before somebody asks."""
        return max(SHORTEST_SILENCE, self.mean or 0.0)
