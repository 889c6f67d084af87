"""Who runs, who waits, and who is told to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...core.failure import AttemptError, FailureKind
from ..execution.slots import Slots, Turn
from .demand import Demand, start_by

_FIRST_GUESS = 0.5
_WEIGHT = 0.2
_SOONEST, _LATEST = 0.05, 10.0


class Admission:
    """The places at one model: ``limit`` run, ``max_waiting`` wait, the rest are refused.

    The more urgent goes first, and among equals who came first. Who could not start in time is told so at once.
    """

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._slots = Slots(limit, max_waiting)
        self._typical: float | None = None

    @property
    def running(self) -> int:
        """How many calls have a place now."""
        return self._slots.running

    @property
    def waiting(self) -> int:
        """How many calls wait now."""
        return self._slots.waiting

    @asynccontextmanager
    async def place(self, demand: Demand) -> AsyncIterator[None]:
        """A place for one piece of work, waited for as long as somebody wants it to.

        Raises `AttemptError` (overloaded) at once where too many wait or the wait would be too long, and when it was.
        """
        await self._enter(demand)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            yield
        finally:
            took = clock() - started
            self._typical = took if self._typical is None else self._typical + _WEIGHT * (took - self._typical)
            self._slots.give_back()

    async def _enter(self, demand: Demand) -> None:
        slots = self._slots
        if slots.full:
            raise self._refusal("too many calls wait here")
        if not slots.free:
            self._refuse_what_cannot_start_in_time(demand)
        turn = Turn(demand.context.priority)
        try:
            with demand.heard_by(lambda: slots.hasten(turn, demand.context.priority)):
                async with demand.until(start_by):
                    await slots.take(turn)
        except TimeoutError:
            pass
        else:
            return
        raise self._refusal("its turn did not come in time")

    def _refuse_what_cannot_start_in_time(self, demand: Demand) -> None:
        if self._typical is None:  # what nobody has measured refuses nobody
            return
        slots, now = self._slots, asyncio.get_running_loop().time()
        ahead = slots.before(demand.context.priority) - slots.running
        if now + self._typical * ahead / slots.capacity > start_by(demand.context):
            raise self._refusal("the calls that wait here take longer than this one can wait")

    def _refusal(self, sentence: str) -> AttemptError:
        """With the time until the next place is likely free: the typical time, shared by those that run."""
        typical = _FIRST_GUESS if self._typical is None else self._typical
        soon = min(max(typical / self._slots.capacity, _SOONEST), _LATEST)
        return AttemptError(FailureKind.OVERLOADED, sentence, retry_after=soon)
