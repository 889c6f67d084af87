"""Who goes next: a bounded number of turns, given by priority and then by arrival."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from ...core.failure import AttemptError
from ...core.request import Priority

_RANKS = {priority: rank for rank, priority in enumerate(reversed(Priority))}


class Turns:
    """``slots`` turns at once. Closed at first: whoever comes waits until `open`, or is refused after `refuse`."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._taken = 0
        self._is_open = False
        self._refusal: AttemptError | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return sum(not waiter.done() for _, _, waiter in self._waiting)

    @property
    def taken(self) -> int:
        """How many turns are given and not ended."""
        return self._taken

    async def take(self, priority: Priority) -> None:
        """Wait for a turn. Raises what `refuse` was given. A waiter who is cancelled is forgotten."""
        if self._refusal is not None:
            raise _again(self._refusal)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (_RANKS[priority], next(self._arrivals), waiter))
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The turn came in the same moment as the cancellation.
                self.give_back()
            raise

    def give_back(self) -> None:
        """End a turn."""
        self._taken -= 1
        self._grant()

    def open(self) -> None:
        """Give turns from now on."""
        self._is_open, self._refusal = True, None
        self._grant()

    def close(self) -> None:
        """Give no turns until `open`; whoever comes waits."""
        self._is_open, self._refusal = False, None

    def refuse(self, failure: AttemptError) -> None:
        """Give no turns until `open` or `close`; whoever waits or comes gets ``failure``."""
        self._is_open, self._refusal = False, failure
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(_again(failure))
        self._waiting.clear()

    def _grant(self) -> None:
        while self._is_open and self._taken < self._slots and self._waiting:
            _, _, waiter = heapq.heappop(self._waiting)
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)


def _again(failure: AttemptError) -> AttemptError:
    """A fresh object for each who is told, because raising writes a traceback into it."""
    return AttemptError(failure.kind, failure.sentence)
