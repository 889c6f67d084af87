"""One piece of work, apart from the connections on which its answer is read.

The work fills a buffer of numbered messages; readers come, go and come again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from ...core.failure import AttemptError, FailureKind
from .demand import Demand, deadline
from .refusals import told

LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes of one answer that are kept. Of a longer one the beginning is forgotten once it was read, and its engine waits
for a reader that is so far behind."""

Produce = Callable[[Demand], AsyncGenerator[bytes, None]]
"""Says an answer, message by message, as it is wanted. Raises `AttemptError`."""


class Work:
    """A task that says an answer once, and what it has said.

    It stops by its ``demand``'s deadline, and when nobody wants it any more: at once when the last reader has gone, or
    after ``lives_on`` seconds while it has a name in `names`, by which a reader may come back. ``ended`` is called
    once, when it has ended.
    """

    def __init__(self, produce: Produce, demand: Demand, lives_on: float, ended: Callable[[Work], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept: deque[bytes] = deque()
        self._forgotten = 0
        self._lives_on = lives_on
        self._ended = ended
        self._positions: dict[int, int] = {}
        self._readers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._farewell: asyncio.TimerHandle | None = None
        self.demand = demand
        self.names: set[str] = set()
        """The names of its streams that are not released."""
        self.size = 0
        """Bytes that are kept."""
        self.failure: AttemptError | None = None
        """What it failed with, once it has."""
        self.done = False
        """Whether it has ended, well or not."""
        self._stopped = False
        self._task = self._loop.create_task(self._run(produce), name="edgewise-serve-work")
        self._task.add_done_callback(self._end)

    @property
    def said(self) -> int:
        """How many messages there were so far."""
        return self._forgotten + len(self._kept)

    def has(self, after: int) -> bool:
        """Whether all that follows the first ``after`` messages is here or will be."""
        late = not self.done and self._loop.time() >= deadline(self.demand.context)
        return not (self._stopped or late) and self._forgotten <= after <= self.said

    async def read(self, after: int) -> AsyncGenerator[bytes, None]:
        """The messages that follow the first ``after`` ones, as they come. Raises `AttemptError` where it fails."""
        reader = self._readers = self._readers + 1
        self._positions[reader] = at = after
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None
        try:
            while True:
                while at < self.said:
                    message = self._kept[at - self._forgotten]
                    self._positions[reader] = at = at + 1
                    self._wake()
                    yield message
                if self.done:
                    break
                await self._news()
        finally:
            del self._positions[reader]
            self._wake()
            if not self._positions and not self.done:
                self._left()
        if self.failure is not None:
            raise self.failure

    def release(self, name: str) -> None:
        """Nobody will ask for the stream of this name again."""
        self.names.discard(name)
        if not self.names and not self._positions:
            self.stop()

    def stop(self) -> None:
        """End the work now. Idempotent."""
        self._stopped = not self.done
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait until it has ended."""
        await asyncio.wait([self._task])

    def _left(self) -> None:
        """The last reader has gone."""
        if self.names and self._lives_on > 0:
            self._farewell = self._loop.call_later(self._lives_on, self.stop)
        else:
            self.stop()

    async def _run(self, produce: Produce) -> AttemptError | None:
        try:
            async with self.demand.until(deadline):
                await self._fill(produce)
        except TimeoutError:
            return AttemptError(FailureKind.TIMED_OUT, "the call's time was up")
        except Exception as error:  # noqa: BLE001  # a backend that breaks its contract fails this work alone
            return told(error)
        return None

    def _end(self, task: asyncio.Task[AttemptError | None]) -> None:
        gone = AttemptError(FailureKind.PREEMPTED, "nobody wanted the answer any more")
        self.failure = gone if task.cancelled() else task.result()
        self.done = True
        if self._farewell is not None:
            self._farewell.cancel()
        self._wake()
        self._ended(self)

    async def _fill(self, produce: Produce) -> None:
        messages = produce(self.demand)
        try:
            async for message in messages:
                self._kept.append(message)
                self.size += len(message)
                self._wake()
                while self.size > LARGEST_ANSWER and not self._forget_what_was_read():
                    await self._news()
        finally:
            await messages.aclose()

    def _forget_what_was_read(self) -> bool:
        """Forget from the beginning as far as everybody has read; whether enough was forgotten."""
        read = min(self._positions.values(), default=0)
        while self.size > LARGEST_ANSWER and self._forgotten < read:
            self.size -= len(self._kept.popleft())
            self._forgotten += 1
        return self.size <= LARGEST_ANSWER

    async def _news(self) -> None:
        news: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(news)
        try:
            await news
        finally:
            self._waiting.discard(news)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
