"""Interrupts a wait that lasts too long, without a timer per wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


class WaitedTooLong(Exception):
    """The watchdog ended the wait."""


class Watchdog:
    """Bounds each `next` of a stream by ``due``, an instant on the loop's clock that moves as the stream goes on.

    One timer is armed for the whole stream. When it fires early, because ``due`` has moved on, it is armed again; a
    token costs it an assignment. ``asyncio.timeout`` would do the same for 10 µs a token. The interruption is
    ``asyncio.timeout``'s: the waiting task is cancelled, and the cancellation taken back here.
    """

    def __init__(self, due: float) -> None:
        self.due = due
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Task[object] | None = None
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, events: AsyncIterator[T]) -> T:
        """The stream's next event. Raises `WaitedTooLong` when ``due`` passes first, else what the stream raises."""
        task = asyncio.current_task()
        assert task is not None
        timer = self._timer
        if timer is None or timer.when() > self.due:
            self._arm()
        cancellations = task.cancelling()
        self._fired = False
        self._waiting = task
        try:
            return await anext(events)
        except asyncio.CancelledError:
            if not self._fired or task.cancelling() > cancellations + 1:
                raise  # somebody else's cancellation
        finally:
            self._waiting = None
            if self._fired:
                task.uncancel()
        raise WaitedTooLong

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.stop()
        self._timer = self._loop.call_at(self.due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the reader is slow, not the stream; the next wait arms it again
        if self._loop.time() < self.due:
            self._arm()
            return
        self._fired = True
        self._waiting.cancel()
