"""One deadline over all the waits of a call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """A timer that is set once: `asyncio.timeout` around each wait costs more than reading a token does.

    It strikes whoever waits through it, and never a reader between two waits, however late that is.
    """

    def __init__(self, until: float) -> None:
        """``until`` is on the loop's clock; infinity never comes."""
        loop = asyncio.get_running_loop()
        self._timer = None if until == math.inf else loop.call_at(until, self.end)
        self._waiting: asyncio.Task[object] | None = None
        self._ended = self._struck = False

    async def wait(self, begin: Callable[[], Awaitable[T]]) -> T:
        """What comes of what ``begin`` begins. Raises ``TimeoutError`` where patience ends first."""
        if self._ended:
            raise TimeoutError
        task = self._waiting = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        already = task.cancelling()
        try:
            return await begin()
        except asyncio.CancelledError:
            if not self._struck or task.cancelling() > already + 1:
                raise  # somebody else cancels
        finally:
            self._waiting = None
            if self._struck:
                task.uncancel()
        raise TimeoutError

    def end(self) -> None:
        """Wait no longer, now and from now on."""
        self._ended = True
        if self._waiting is not None and not self._struck:
            self._struck = True
            self._waiting.cancel()

    def close(self) -> None:
        """The call is over."""
        if self._timer is not None:
            self._timer.cancel()
