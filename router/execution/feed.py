"""A backend's stream, taken at the backend's own speed and read with a bound on each wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from ...core.answer import Delta, GenerateEvent
from .attempt import Attempt

MOST_AHEAD = 4096
MOST_CHARACTERS_AHEAD = 1_000_000
"""So many events, and so much text in them, wait for the reader at most; then the backend waits until half is read."""


class Feed:
    """One attempt's stream on its way to the reader.

    A task of its own takes what the backend sends. So a slow reader holds no engine and uses up no remote call's
    deadline; what is learned of the backend's pace is not the reader's; and a wait ends on time even where the backend
    does not let itself be interrupted. What waits for a slow reader is bounded, whatever the backend sends.
    """

    def __init__(self, attempt: Attempt, events: AsyncGenerator[GenerateEvent, None]) -> None:
        self._attempt = attempt
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[GenerateEvent] = deque()
        self._end: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._resume_at = 0
        self._characters = 0
        """In what has arrived since the reader last had it all; never less than what waits."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._taking = self._loop.create_task(self._take())

    async def next(self, due: float) -> GenerateEvent | Exception | None:
        """The next event, or what the stream ended with; ``None`` where nothing came by ``due`` on the loop's clock."""
        if not self._arrived and self._end is None:
            self._due = due
            self._characters = 0
            if self._timer is None or self._timer.when() > due:
                self._arm()
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._arrived:
            event = self._arrived.popleft()
            if self._room is not None and len(self._arrived) <= self._resume_at:
                _wake(self._room)
            return event
        return self._end

    def fail(self, error: Exception) -> None:
        """End the stream with this error after what has arrived, however slow its backend is to stop."""
        if self._end is not None:
            return
        self._end = error
        # The task writes on to the one that it has.
        self._arrived = deque(self._arrived)
        self._taking.cancel()
        if self._reader is not None:
            _wake(self._reader)

    async def close(self) -> None:
        """Stop the work behind the stream, and wait until it has stopped."""
        if self._timer is not None:
            self._timer.cancel()
        self._taking.cancel()
        await asyncio.wait([self._taking])
        await self._events.aclose()

    async def _take(self) -> None:
        attempt, arrived, loop = self._attempt, self._arrived, self._loop
        try:
            async for event in self._events:
                if isinstance(event, Delta):
                    attempt.token(event.tokens, loop.time())
                    self._characters += len(event.text)
                arrived.append(event)
                if self._reader is not None:
                    _wake(self._reader)
                if len(arrived) >= MOST_AHEAD or self._characters >= MOST_CHARACTERS_AHEAD:
                    await self._have_room(arrived)
            self._ended(attempt.truncated())
        except asyncio.CancelledError:
            # Where `close` or `fail` cancelled it nobody reads this any more.
            self._ended(attempt.cancelled_itself())
        except Exception as error:  # noqa: BLE001  # the attempt judges it
            self._ended(error)
        finally:
            if self._reader is not None:
                _wake(self._reader)

    async def _have_room(self, arrived: deque[GenerateEvent]) -> None:
        """Wait until the reader has read half of what waits, where that is too much."""
        self._characters = sum(len(event.text) for event in arrived if isinstance(event, Delta))
        if len(arrived) < MOST_AHEAD and self._characters < MOST_CHARACTERS_AHEAD:
            return
        self._resume_at = len(arrived) // 2
        self._room = self._loop.create_future()
        await self._room
        self._room = None
        self._characters = sum(len(event.text) for event in arrived if isinstance(event, Delta))

    def _ended(self, error: Exception) -> None:
        """The first end stands."""
        if self._end is None:
            self._end = error

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """The timer fires early when ``due`` has moved on since: one timer serves the whole stream."""
        self._timer = None
        if self._reader is None:
            return
        if self._loop.time() < self._due:
            self._arm()
        else:
            _wake(self._reader)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
