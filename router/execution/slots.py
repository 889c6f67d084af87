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

_RANK = {priority: rank for rank, priority in enumerate(reversed(Priority))}


class Turn:
    """One call's turn at some slots, by its priority. Whoever waits may be hastened."""

    __slots__ = ("came", "rank")

    def __init__(self, priority: Priority) -> None:
        self.rank = _RANK[priority]
        self.came: asyncio.Future[None] | None = None
        """``None`` before it waits."""


class Slots:
    """A backend's places: ``capacity`` calls run, ``most_waiting`` wait, higher priority first, then first come.

    ``promised`` counts the requests that hold this backend in reserve as their last resort: they have no place yet,
    and whoever plans must reckon with them.
    """

    def __init__(self, capacity: int, most_waiting: int = MOST_WAITING) -> None:
        self.capacity = capacity
        self.running = 0
        self.promised = 0
        self._most_waiting = most_waiting
        self._order = count()
        self._queue: list[tuple[int, int, Turn]] = []
        self._waiting = [0] * len(_RANK)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return sum(self._waiting)

    @property
    def free(self) -> bool:
        """Whether a newcomer has a place at once."""
        return self.running < self.capacity and not self.waiting

    @property
    def full(self) -> bool:
        """Whether a newcomer may not even wait."""
        return not self.free and self.waiting >= self._most_waiting

    def before(self, priority: Priority) -> int:
        """Calls that run, or wait and have their turn before a newcomer of this priority."""
        return self.running + sum(self._waiting[: _RANK[priority] + 1])

    def ahead(self, priority: Priority) -> float:
        """How many mean answers a newcomer of this priority waits for, the promised ones counted."""
        return max(0.0, (self.before(priority) + self.promised - self.capacity + 1) / self.capacity)

    async def take(self, turn: Turn) -> None:
        """Wait for a place. Raises `AttemptError` (overloaded) where too many wait already."""
        if self.free:
            self.running += 1
            return
        if self.full:
            sentence = f"{self.waiting} requests wait there already"
            raise AttemptError(FailureKind.OVERLOADED, sentence, retry_after=math.inf)
        turn.came = asyncio.get_running_loop().create_future()
        self._queue_up(turn)
        try:
            await turn.came
        except asyncio.CancelledError:
            if turn.came.cancelled():
                self._waiting[turn.rank] -= 1  # its entry is passed over when its turn comes
            else:
                self.give_back()  # the turn came together with the cancellation
            raise

    def hasten(self, turn: Turn, priority: Priority) -> None:
        """Give a turn a higher priority, if it is one. Who waits goes behind those that have had it before."""
        rank = _RANK[priority]
        if rank >= turn.rank or (turn.came is not None and turn.came.done()):
            return
        if turn.came is None:
            turn.rank = rank
            return
        self._waiting[turn.rank] -= 1
        turn.rank = rank
        self._queue_up(turn)  # its entry of before is passed over, like one that was cancelled

    def give_back(self) -> None:
        """A place is free: the next in the queue has it."""
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            assert turn.came is not None
            if not turn.came.done():
                self._waiting[turn.rank] -= 1
                turn.came.set_result(None)
                return
        self.running -= 1

    def _queue_up(self, turn: Turn) -> None:
        heapq.heappush(self._queue, (turn.rank, next(self._order), turn))
        self._waiting[turn.rank] += 1
