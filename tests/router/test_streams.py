"""How a stream is read, and what happens where it is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from edgewise.backends import CallContext, Capabilities
from edgewise.core.answer import Delta, Finish, GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.core.request import Task
from edgewise.router import (
    AsyncRouter,
    AttemptError,
    Chunk,
    DeadlineExceeded,
    FailureKind,
    FinishReason,
    PartialAnswer,
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


class Alone(ScriptedBackend):
    """Takes one call at a time, like an engine on the device."""

    def __init__(self, name: str, script: Script) -> None:
        super().__init__(name, script, capabilities=Capabilities(frozenset(Task), continues=True, max_concurrency=1))


class KeepsItsDeadline(Alone):
    """Ends a call at the deadline that it was given, like a remote service."""

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        try:
            async with asyncio.timeout_at(context.deadline.at):
                async for event in super().generate(call, context):
                    yield event
        except TimeoutError:
            raise AttemptError(FailureKind.TIMED_OUT, "it did not finish in time") from None


async def rest_of(chunks: AsyncGenerator[Chunk, None]) -> str:
    return "".join([chunk.text async for chunk in chunks])


@pytest.mark.parametrize("kind", [Alone, KeepsItsDeadline], ids=["local", "remote"])
@pytest.mark.parametrize("others", [[], ["phone"]], ids=["alone", "two"])
def test_a_stream_that_is_kept_and_not_read_ends_with_its_budget(
    make_router: RouterMaker, kind: type[Alone], others: list[str]
) -> None:
    cloud = kind("cloud", Script(words=("one ",) * 30, every=0.4))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, *map(ScriptedBackend, others)) as router:
            begun = loop.time()
            chunks = router.stream("Hello", data_class="public", latency_budget=5.0)
            await anext(chunks)
            await asyncio.sleep(begun + 4.95 - loop.time())
            assert router.stats().backends["cloud"].queue.running == 1
            await asyncio.sleep(0.1)
            assert router.stats().backends["cloud"].queue.running == 0
            assert cloud.calls[0].outcome == ["cancelled"]
            await asyncio.sleep(60.0)
            again = loop.time()
            with pytest.raises(DeadlineExceeded) as caught:
                await rest_of(chunks)
            assert loop.time() == pytest.approx(again, abs=0.05)
            # All that came in time, as to a reader who waited.
            assert caught.value.partial == "one " * 13
            assert caught.value.decision.attempts[0].failure is FailureKind.TIMED_OUT

    run_in_virtual_time(main())


@pytest.mark.parametrize("resumed", [False, True], ids=["the first", "one that goes on with it"])
def test_whoever_goes_on_with_a_stream_ends_with_its_budget_too(make_router: RouterMaker, resumed: bool) -> None:
    words = ("one ", "two ", *("three ",) * 300)
    slow = Script(words, every=0.04, failure=None if resumed else BROKEN, fails_after=2)
    slow = replace(slow, lost_after=(2,) if resumed else ())
    can = Capabilities(frozenset(Task), continues=True, resumes=resumed, max_concurrency=1)
    cloud = ScriptedBackend("cloud", slow, capabilities=can)
    phone = Alone("phone", Script(("three ",) * 300, every=0.04))

    async def main() -> None:
        async with make_router(cloud, *([] if resumed else [phone])) as router:
            chunks = router.stream("Hello", data_class="public", latency_budget=5.0)
            assert [(await anext(chunks)).text for _ in range(3)] == ["one ", "two ", "three "]
            name = "cloud" if resumed else "phone"
            assert router.stats().backends[name].queue.running == 1
            await asyncio.sleep(5.0)
            assert router.stats().backends[name].queue.running == 0
            with pytest.raises(DeadlineExceeded):
                await rest_of(chunks)

    run_in_virtual_time(main())


@pytest.mark.parametrize("breaks", [False, True], ids=["whole", "broken"])
def test_what_is_over_holds_no_slot_while_it_waits_to_be_read(make_router: RouterMaker, breaks: bool) -> None:
    script = Script(("one ", "two ", "three"), every=0.5, failure=BROKEN if breaks else None, fails_after=2)
    cloud = Alone("cloud", script)

    async def main() -> None:
        async with make_router(cloud) as router:
            chunks = router.stream("Hello", data_class="public", latency_budget=5.0)
            await anext(chunks)
            await asyncio.sleep(2.0)
            stats = router.stats().backends["cloud"]
            assert (stats.queue.running, sum(stats.attempts.failed.values())) == (0, breaks)
            # Long after the deadline all that came is still there.
            await asyncio.sleep(60.0)
            if breaks:
                with pytest.raises(PartialAnswer) as caught:
                    await rest_of(chunks)
                assert caught.value.partial == "one two "
            else:
                assert await rest_of(chunks) == "two three"

    run_in_virtual_time(main())


@pytest.mark.parametrize("read", [0, 3000], ids=["never", "once"])
def test_who_is_too_far_ahead_at_the_deadline_is_stopped_and_not_blamed(make_router: RouterMaker, read: int) -> None:
    class Endless(Alone):
        async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            while True:
                yield Delta("x")

    async def main() -> None:
        async with make_router(Endless("cloud", Script())) as router:
            chunks = router.stream("Hello", data_class="public", latency_budget=5.0, max_output_tokens=100_000)
            for _ in range(1 + read):
                await anext(chunks)
            await asyncio.sleep(5.05)
            stats = router.stats().backends["cloud"]
            assert (stats.queue.running, stats.attempts.stopped) == (0, 1)
            with pytest.raises(DeadlineExceeded) as caught:
                await rest_of(chunks)
            assert len(caught.value.partial) >= 4096 + read

    run_in_virtual_time(main())


def test_a_reader_s_wait_for_a_stall_leaves_the_deadline_kept(make_router: RouterMaker) -> None:
    """One timer serves both."""
    cloud = Alone("cloud", Script(("one ",) * 300, every=0.04))

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            chunks = router.stream("Hello", data_class="public", latency_budget=8.0)
            for _ in range(10):
                await anext(chunks)
            await asyncio.sleep(7.7)
            assert router.stats().backends["cloud"].queue.running == 0

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
