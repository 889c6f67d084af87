"""Who runs now and who waits at one backend."""

from __future__ import annotations

import asyncio
import heapq
import math
from itertools import count

from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority

MOST_WAITING = 1024
"""Beyond so many waiting attempts a backend takes no more: the queue is bounded, whatever the budgets."""

_RANK = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class Slots:
    """A backend's places: ``capacity`` attempts run, the others wait, higher priority first, then first come.

    ``promised`` counts the requests that hold this backend in reserve as their last resort: they have no place yet,
    and whoever plans must reckon with them.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.running = 0
        self.promised = 0
        self._order = count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiting = [0] * len(_RANK)

    @property
    def waiting(self) -> int:
        """Attempts that wait for a place."""
        return sum(self._waiting)

    def before(self, priority: Priority) -> int:
        """Attempts that run, or wait and have their turn before a newcomer of this priority."""
        return self.running + sum(self._waiting[: _RANK[priority] + 1])

    def ahead(self, priority: Priority) -> float:
        """How many mean answers a newcomer of this priority waits for, the promised ones counted."""
        return max(0.0, (self.before(priority) + self.promised - self.capacity + 1) / self.capacity)

    async def take(self, priority: Priority) -> None:
        """Wait for a place. Raises `AttemptError` (overloaded) where too many wait already."""
        if self.running < self.capacity and not self.waiting:
            self.running += 1
            return
        if self.waiting >= MOST_WAITING:
            sentence = f"{self.waiting} requests wait there already"
            raise AttemptError(FailureKind.OVERLOADED, sentence, retry_after=math.inf)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rank = _RANK[priority]
        heapq.heappush(self._queue, (rank, next(self._order), turn))
        self._waiting[rank] += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting[rank] -= 1  # its entry is passed over when its turn comes
            else:
                self.give_back()  # the turn came together with the cancellation
            raise

    def give_back(self) -> None:
        """A place is free: the next in the queue has it."""
        while self._queue:
            rank, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self._waiting[rank] -= 1
                turn.set_result(None)
                return
        self.running -= 1
