"""A backend's stream, taken at the backend's own speed and read with a bound on each wait."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator

from ...core.answer import Delta, GenerateEvent
from ...core.failure import AttemptError, FailureKind
from .attempt import Attempt

MOST_AHEAD = 4096
MOST_CHARACTERS_AHEAD = 1_000_000
"""So many events, and so much text in them, wait for the reader at most; then the backend waits until half is read."""


class Feed:
    """One attempt's stream on its way to the reader.

    A task of its own takes what the backend sends. So a slow reader holds no engine and uses up no remote call's
    deadline; what is learned of the backend's pace is not the reader's; and a wait ends on time even where the backend
    does not let itself be interrupted. What waits for a slow reader is bounded, whatever the backend sends.

    How it ends is the feed's to say, whether or not anybody reads: the attempt is judged, its work stopped and its slot
    freed at once, and what has arrived waits for the reader.
    """

    def __init__(self, attempt: Attempt, events: AsyncGenerator[GenerateEvent, None]) -> None:
        self._attempt = attempt
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[GenerateEvent] = deque()
        self._failure: AttemptError | None = None
        self._closing: asyncio.Task[None] | None = None
        """There from its end on."""
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._resume_at = 0
        self._characters = 0
        """In what has arrived since the reader last had it all; never less than what waits."""
        self._due = math.inf
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._taking = self._loop.create_task(self._take())

    async def next(self, due: float) -> GenerateEvent | AttemptError | None:
        """The next event, or what the stream failed with; ``None`` where nothing came by ``due`` (the loop's clock)."""
        if not self._arrived and self._closing is None:
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
        return self._failure

    def keep_deadline(self) -> None:
        """From now on end the stream at its attempt's deadline. Until its first event whoever waits for that does."""
        if self._closing is None:
            self._deadline = self._attempt.run.deadline.at
            self._arm()

    def fail(self, error: AttemptError) -> None:
        """End the stream with this error after what has arrived, however slow its backend is to stop."""
        self.end(error)

    def end(self, error: BaseException | None) -> asyncio.Task[None]:
        """Judge the attempt (``None``: its answer is whole) and stop its work; returns that. The first end stands."""
        if self._closing is None:
            self._failure = self._attempt.settle(error)
            # The task of a backend that is slow to stop writes on to the one that it has.
            self._arrived = deque(self._arrived)
            self._closing = self._attempt.close(self._stop)
            if self._timer is not None:
                self._timer.cancel()
            if self._reader is not None:
                _wake(self._reader)
        return self._closing

    async def _stop(self) -> None:
        """Stop the work behind the stream, and wait until it has stopped."""
        self._taking.cancel()
        await asyncio.wait([self._taking])
        await self._events.aclose()

    async def _take(self) -> None:
        attempt, arrived, loop = self._attempt, self._arrived, self._loop
        try:
            async for event in self._events:
                arrived.append(event)
                if not isinstance(event, Delta):
                    attempt.usage = event.usage
                    self.end(None)
                    return
                attempt.token(event.tokens, loop.time())
                self._characters += len(event.text)
                if self._reader is not None:
                    _wake(self._reader)
                if len(arrived) >= MOST_AHEAD or self._characters >= MOST_CHARACTERS_AHEAD:
                    await self._have_room(arrived)
            self.end(attempt.truncated())
        except asyncio.CancelledError as cancelled:
            # The event loop may end with the stream still open: that is no fault of the backend.
            self.end(cancelled if self._taking.cancelling() else attempt.cancelled_itself())
        except Exception as error:  # noqa: BLE001  # the attempt judges it
            self.end(error)

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

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = min(self._due, self._deadline)
        self._timer = None if at == math.inf else self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """The timer fires early when ``due`` has moved on since: one timer serves the whole stream."""
        self._timer = None
        now = self._loop.time()
        if now >= self._deadline:
            self._run_out()
            return
        if now >= self._due:
            self._due = math.inf
            if self._reader is not None:
                _wake(self._reader)
        self._arm()

    def _run_out(self) -> None:
        sentence = f"backend {self._attempt.step.backend!r} did not finish in time"
        late = AttemptError(FailureKind.TIMED_OUT, sentence)
        # One that waits for the reader is not to blame.
        self.end(late if self._room is None else asyncio.CancelledError())
        self._failure = late


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
