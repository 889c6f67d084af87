"""One call's replies in the application: read as they come, bounded, and cancelled by leaving."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ...core.failure import AttemptError
from .engine import Parcel

WINDOW = 64
"""How many events the engine may be ahead of a slow reader; then it waits."""


class Replies:
    """An asynchronous iterator over one call's events, to be used as ``with replies:``.

    Leaving the ``with`` block, or cancelling the task that waits here, cancels the call. ``send_credit`` tells the
    engine of room for more events, ``send_cancel`` to stop; neither is called after the end.
    """

    __slots__ = ("_arrived", "_ended", "_failure", "_loop", "_send_cancel", "_send_credit", "_taken", "_waiter")

    def __init__(self, send_credit: Callable[[int], None], send_cancel: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._send_credit = send_credit
        self._send_cancel = send_cancel
        self._arrived: deque[Parcel] = deque()
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._failure: AttemptError | None = None

    def add(self, event: Parcel) -> None:
        """An event has arrived. Said by the connection."""
        if not self._ended:
            self._arrived.append(event)
            self._wake()

    def end(self, failure: AttemptError | None = None) -> None:
        """Nothing more will arrive. Said by the connection. What has arrived is still read, then ``failure`` raised."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def cancel(self) -> None:
        """Stop the call, where it has not ended by itself. Idempotent, returns at once."""
        if not self._ended:
            self._ended = True
            self._send_cancel()
        self._arrived.clear()

    def __aiter__(self) -> Replies:
        return self

    async def __anext__(self) -> Parcel:
        while not self._arrived:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        self._taken += 1
        if self._taken == WINDOW // 2 and not self._ended:
            self._send_credit(self._taken)
            self._taken = 0
        return self._arrived.popleft()

    def __enter__(self) -> Replies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
