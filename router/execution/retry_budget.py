"""How many attempts beyond the first ones a backend is sent, so that an outage is not made worse.

A token bucket a backend, after Finagle's retry budget: first attempts earn what retries and hedges cost.
"""

from __future__ import annotations

from collections.abc import Callable

EARNED_PER_FIRST_ATTEMPT = 0.2
"""Under steady load at most one attempt in six is an extra one."""

LOST_BY_FAILURE = 0.1
"""A first attempt that fails earns half, so that in a total outage, what was saved before it counted in, less than
1.2 × the requests reach a backend."""

HEDGE_SHARE = 0.25
"""Hedges take at most this share of what is earned: they guess, where a retry knows."""

MOST_EARNED = 10.0
RESERVE_SECONDS = 10.0
MOST_RESERVE = 2.0
"""A reserve of one token per `RESERVE_SECONDS`, at most so many, lets a quiet client retry and hedge."""


class RetryBudget:
    """One backend's tokens. ``clock`` is monotonic, in seconds. A new bucket's reserve is full."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._earned = 0.0
        self._for_hedges = 0.0
        self._reserve = MOST_RESERVE
        self._filled_at = clock()

    def earn(self) -> None:
        """A first attempt was made."""
        self._earned = min(MOST_EARNED, self._earned + EARNED_PER_FIRST_ATTEMPT)
        self._for_hedges = min(MOST_EARNED * HEDGE_SHARE, self._for_hedges + EARNED_PER_FIRST_ATTEMPT * HEDGE_SHARE)

    def lose(self) -> None:
        """A first attempt failed."""
        self._earned = max(0.0, self._earned - LOST_BY_FAILURE)
        self._for_hedges = max(0.0, min(self._for_hedges - LOST_BY_FAILURE * HEDGE_SHARE, self._earned))

    def pay_for_retry(self) -> bool:
        """Take a token for a retry; returns whether there was one."""
        if self._earned < 1.0:
            return self._pay_from_reserve()
        self._earned -= 1.0
        self._for_hedges = min(self._for_hedges, self._earned)
        return True

    def pay_for_hedge(self) -> bool:
        """Take a token for a hedge; returns whether there was one."""
        if self._for_hedges < 1.0:
            return self._pay_from_reserve()
        self._for_hedges -= 1.0
        self._earned -= 1.0
        return True

    @property
    def for_retries(self) -> float:
        """Tokens that retries may take now, the reserve's among them."""
        self._fill_reserve()
        return self._earned + self._reserve

    @property
    def for_hedges(self) -> float:
        """Tokens that hedges may take now, the reserve's among them."""
        self._fill_reserve()
        return self._for_hedges + self._reserve

    def _pay_from_reserve(self) -> bool:
        self._fill_reserve()
        if self._reserve < 1.0:
            return False
        self._reserve -= 1.0
        return True

    def _fill_reserve(self) -> None:
        now = self._clock()
        self._reserve = min(MOST_RESERVE, self._reserve + (now - self._filled_at) / RESERVE_SECONDS)
        self._filled_at = now
