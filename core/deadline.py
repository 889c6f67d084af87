"""One absolute instant by which a request has ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """An absolute instant on the event loop's monotonic clock, in seconds.

    Budgets become a deadline once, on entry; everything later compares instants and never adds up
    timeouts again.
    """

    at: float

    @classmethod
    def after(cls, start: float, budget: float) -> Deadline:
        """The instant ``budget`` seconds after ``start``."""
        return cls(start + budget)

    def remaining(self, now: float) -> float:
        """Seconds left at ``now``; never negative."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether the instant has been reached at ``now``."""
        return now >= self.at
