"""A call that nobody wants any more stops, and leaves its place to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...core.answer import Delta
from ...core.content import GenerateInput
from ...core.request import Task
from .suite import Suite, cancel, on_loop


class CancellationTests(Suite):
    """Closing a stream, and cancelling the task that reads it. For backends that `generate`."""

    @on_loop
    async def test_closing_a_stream_stops_the_work_and_frees_its_place(self) -> None:
        await self._repeatedly(self._close_early)
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_closing_a_stream_that_was_never_read_does_no_harm(self) -> None:
        await self.backend.generate(self._long(), self.context()).aclose()
        await self.becomes_idle()
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_cancelling_whoever_reads_a_stream_stops_the_work_and_frees_its_place(self) -> None:
        await self._repeatedly(self._cancel_the_reader)
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_those_who_wait_for_a_place_can_be_cancelled_and_others_still_get_theirs(self) -> None:
        taken = min(self.backend.capabilities.max_concurrency, self.concurrent)
        for _ in range(taken + 1 if self.streams else 1):  # one that is lost each time shows
            streams = [self.backend.generate(self._long(), self.context()) for _ in range(taken)]
            for stream in streams:
                await anext(stream)
            waiting = [asyncio.create_task(self.ask(Task.GENERATE)) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            for stream in streams:
                await stream.aclose()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(ended[0], asyncio.CancelledError), "a cancellation was swallowed"
            assert ended[1:] == [None, None]

    def _long(self) -> GenerateInput:
        return self.call(max_output_tokens=512 if self.streams else 16)

    async def _repeatedly(self, end: Callable[[], Awaitable[None]]) -> None:
        """More often than there are places: one that is lost each time shows."""
        self.require_honoured(self.streams, "a stream")
        for _ in range(min(self.backend.capabilities.max_concurrency, 100) + 1):
            await end()
        await self.becomes_idle()

    async def _close_early(self) -> None:
        stream = self.backend.generate(self._long(), self.context())
        assert isinstance(await anext(stream), Delta)
        await stream.aclose()

    async def _cancel_the_reader(self) -> None:
        reading = asyncio.Event()

        async def read() -> None:
            async for _ in self.backend.generate(self._long(), self.context()):
                reading.set()

        work = asyncio.create_task(read())
        begun = asyncio.create_task(reading.wait())
        await asyncio.wait({work, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        await cancel(work)
