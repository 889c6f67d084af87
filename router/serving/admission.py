"""Who runs, who waits, and who is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...core.failure import AttemptError, FailureKind

_FIRST_GUESS = 0.5
_WEIGHT = 0.2
_SOONEST, _LATEST = 0.05, 10.0


class Admission:
    """The places at one model: ``limit`` run, ``max_waiting`` wait in order of arrival, the rest are refused."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._places = asyncio.Semaphore(limit)
        self._typical = _FIRST_GUESS
        self.waiting = 0
        """How many calls wait now."""

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for one call, waited for. Raises `AttemptError` (overloaded) at once where too many wait."""
        await self._enter()
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            yield
        finally:
            self._typical += _WEIGHT * (clock() - started - self._typical)
            self._places.release()

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        if self.waiting >= self._max_waiting:
            raise AttemptError(FailureKind.OVERLOADED, "too many calls wait here", retry_after=self._next_free_place())
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1

    def _next_free_place(self) -> float:
        """Seconds until a place in the queue is likely free: one call's typical time, shared by those that run."""
        return min(max(self._typical / self._limit, _SOONEST), _LATEST)
