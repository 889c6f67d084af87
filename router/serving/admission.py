"""Who runs, who waits, and who is told to come back."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority

_FIRST_GUESS = 0.5
_WEIGHT = 0.2
_SOONEST, _LATEST = 0.05, 10.0

_RANK = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class Admission:
    """The places at one model: ``limit`` run, ``max_waiting`` wait, the rest are refused.

    The more urgent goes first, and among equals who came first. Who could not start in time is told so at once.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._typical: float | None = None
        self.running = 0
        """How many calls have a place now."""
        self.waiting = 0
        """How many calls wait now."""

    @asynccontextmanager
    async def place(self, priority: Priority, start_by: float) -> AsyncIterator[None]:
        """A place for one call, waited for until ``start_by`` on the loop's clock.

        Raises `AttemptError` (overloaded) at once where too many wait or the wait would be too long, and when it was.
        """
        await self._enter(priority, start_by)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            yield
        finally:
            took = clock() - started
            self._typical = took if self._typical is None else self._typical + _WEIGHT * (took - self._typical)
            self._give_back()

    async def _enter(self, priority: Priority, start_by: float) -> None:
        if self.running < self._limit and not self.waiting:
            self.running += 1
            return
        if self.waiting >= self._max_waiting:
            raise self._refusal("too many calls wait here")
        loop = asyncio.get_running_loop()
        rank = _RANK[priority]
        # What nobody has measured refuses nobody.
        ahead = sum(1 for other, _, turn in self._queue if other <= rank and not turn.done())
        if self._typical is not None and loop.time() + self._typical * ahead / self._limit > start_by:
            raise self._refusal("the calls that wait here take longer than this one can wait")
        turn: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._queue, (rank, next(self._order), turn))
        self.waiting += 1
        try:
            async with asyncio.timeout_at(start_by):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.cancelled():
                self.waiting -= 1  # its entry is passed over when its turn comes
            else:
                self._give_back()  # the turn came together with the cancellation
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            return
        raise self._refusal("its turn did not come in time")

    def _give_back(self) -> None:
        """A place is free: the next in the queue has it."""
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self.waiting -= 1
                turn.set_result(None)
                return
        self.running -= 1

    def _refusal(self, sentence: str) -> AttemptError:
        """With the time until the next place is likely free: the typical time, shared by those that run."""
        typical = _FIRST_GUESS if self._typical is None else self._typical
        soon = min(max(typical / self._limit, _SOONEST), _LATEST)
        return AttemptError(FailureKind.OVERLOADED, sentence, retry_after=soon)
