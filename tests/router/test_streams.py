"""How a stream is read, and what happens where it is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import Delta, Finish, GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.router import (
    AsyncRouter,
    AttemptError,
    FailureKind,
    FinishReason,
    RequestError,
)
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import BROKEN, RouterMaker, collect


def test_the_last_chunk_carries_the_whole_answer(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            chunks = await collect(router)
        assert [chunk.text for chunk in chunks] == ["a ", "scripted ", "answer", ""]
        answer = chunks[-1].answer
        assert answer is not None
        assert answer.text == "a scripted answer"
        assert answer.finish_reason is FinishReason.STOP
        assert answer.backend == "cloud"

    run_in_virtual_time(main())


def test_leaving_a_stream_stops_the_work(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=tuple("abcdefgh"), every=0.1))

    async def closed(router: AsyncRouter) -> None:
        async with aclosing(router.stream("Hello", data_class="public")) as chunks:
            async for _ in chunks:
                break

    async def dropped(router: AsyncRouter) -> None:
        async for _ in router.stream("Hello", data_class="public"):
            break
        gc.collect()
        await asyncio.sleep(0.05)

    async def cancelled(router: AsyncRouter) -> None:
        reader = asyncio.create_task(collect(router))
        await asyncio.sleep(0.15)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader

    async def main() -> None:
        async with make_router(cloud) as router:
            for leave in (closed, dropped, cancelled):
                await leave(router)
                assert cloud.calls[-1].outcome == ["cancelled"], leave.__name__
            # Every slot is free again.
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"

    run_in_virtual_time(main())


def test_a_backend_that_is_slow_to_stop_is_told_to_once(make_router: RouterMaker) -> None:
    """Its stream breaks, and while another begins the reader leaves: its stopping is not cut short by that."""

    class SlowToStop(ScriptedBackend):
        stopped = False

        async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            yield Delta("one ", 1)
            try:
                await asyncio.sleep(1000.0)
            finally:
                await asyncio.sleep(3.0)
                self.stopped = True

    cloud = SlowToStop("cloud")

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone", Script(first_after=30.0))) as router:
            reader = asyncio.create_task(collect(router, latency_budget=100.0))
            await asyncio.sleep(1.5)
            assert router.stats().backends["phone"].attempts.started == 1
            reader.cancel()
            await asyncio.wait([reader])
            await asyncio.sleep(0.5)
            assert (cloud.stopped, router.stats().backends["cloud"].queue.running) == (False, 1)
            await asyncio.sleep(3.0)
            assert (cloud.stopped, router.stats().backends["cloud"].queue.running) == (True, 0)

    run_in_virtual_time(main())


def test_a_slow_reader_does_not_make_the_backend_look_slow(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=tuple("abcdefgh"), every=0.01))

    async def main() -> None:
        async with make_router(cloud) as router:
            for _ in range(10):
                await collect(router)
            before = (await router.plan("Hello", data_class="public")).steps[0].prediction.total.median()
            for _ in range(10):
                async for _ in router.stream("Hello", data_class="public"):
                    await asyncio.sleep(0.5)
            after = (await router.plan("Hello", data_class="public")).steps[0].prediction.total.median()
            assert after < 1.5 * before

    run_in_virtual_time(main())


def test_streams_left_early_do_not_keep_a_recovered_backend_out(make_router: RouterMaker) -> None:
    broken = True
    cloud = ScriptedBackend("cloud", lambda _: Script(failure=BROKEN) if broken else Script())

    async def main() -> None:
        nonlocal broken
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            for _ in range(4):
                await collect(router)
            broken = False
            await asyncio.sleep(10.0)
            for _ in range(3):
                async with aclosing(router.stream("Hello", data_class="public")) as chunks:
                    await anext(chunks)
                plan = await router.plan("Hello", data_class="public")
                assert plan.steps[0].backend == "cloud"

    run_in_virtual_time(main())


@pytest.mark.parametrize(("after", "error"), [(0, "BackendError"), (1, "PartialAnswer")])
def test_a_content_filter_s_reason_reaches_the_reader(make_router: RouterMaker, after: int, error: str) -> None:
    refusal = AttemptError(FailureKind.CONTENT_FILTER, "the provider refuses: violence")
    phone = ScriptedBackend("phone")

    async def main() -> None:
        cloud = ScriptedBackend("cloud", Script(failure=refusal, fails_after=after))
        async with make_router(cloud, phone) as router:
            with pytest.raises(RequestError, match="violence") as caught:
                await collect(router)
        assert type(caught.value).__name__ == error

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_backend_that_is_far_ahead_is_left_alone_until_half_of_that_is_read(make_router: RouterMaker) -> None:
    """Else it would be asked anew at every piece that the reader takes."""
    sent = 0

    class Counting(ScriptedBackend):
        async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            nonlocal sent
            for _ in range(10_000):
                sent += 1
                yield Delta("x")
            yield Finish(FinishReason.STOP)

    async def main() -> None:
        async with (
            make_router(Counting("cloud")) as router,
            aclosing(router.stream("Hello", data_class="public", max_output_tokens=10_000)) as chunks,
        ):
            await anext(chunks)
            await asyncio.sleep(1.0)
            ahead = sent
            assert 4096 <= ahead <= 4098
            for _ in range(2000):
                await anext(chunks)
            await asyncio.sleep(1.0)
            assert sent == ahead
            for _ in range(100):
                await anext(chunks)
            await asyncio.sleep(1.0)
            assert sent >= ahead + 2000

    run_in_virtual_time(main())


@pytest.mark.parametrize("left", [True, False], ids=["left early", "read to its end"])
def test_a_stream_that_is_over_leaves_no_timer_until_its_deadline(make_router: RouterMaker, left: bool) -> None:
    """A long budget would keep all that it held for as long."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(ScriptedBackend("cloud")) as router:
            async with aclosing(router.stream("Hello", data_class="public", latency_budget=3600.0)) as chunks:
                async for _ in chunks:
                    if left:
                        break
            await asyncio.sleep(1.0)
            pending = [timer for timer in vars(loop)["_scheduled"] if not timer.cancelled()]
            assert [timer.when() for timer in pending if timer.when() > 1800.0] == []

    run_in_virtual_time(main())
