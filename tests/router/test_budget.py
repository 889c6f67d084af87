"""Every request ends within its budget, and the last resort starts in time to keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edgewise.router import AsyncRouter, DeadlineExceeded
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

RouterMaker = Callable[..., AsyncRouter]
SILENT = Script(silent_after=0)


def test_a_silent_server_is_overtaken_by_the_device_in_time(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            # The prior for a device is slow; a few answers teach how fast this one is.
            for _ in range(20):
                await router.generate("Hello", data_class="secret")
            started = asyncio.get_running_loop().time()
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            assert answer.backend == "phone"
            assert asyncio.get_running_loop().time() - started <= 20.0
            silent, last_resort = answer.decision.attempts
            assert silent.backend == "cloud"
            assert last_resort.started > 15.0  # kept in reserve until its last safe moment, not hedged at once

    run_in_virtual_time(main())
    assert cloud.calls[-1].outcome == ["cancelled"]


@pytest.mark.parametrize("budget", [0.05, 0.5, 3.0])
def test_a_request_nobody_answers_ends_at_its_deadline(make_router: RouterMaker, budget: float) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone", SILENT)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, phone) as router:
            for call in (
                router.generate("Hello", data_class="public", latency_budget=budget),
                router.embed(["Hello"], data_class="public", latency_budget=budget),
                anext(router.stream("Hello", data_class="public", latency_budget=budget)),
            ):
                started = loop.time()
                with pytest.raises(DeadlineExceeded):
                    await call
                assert loop.time() - started <= budget + 1e-6

    run_in_virtual_time(main())


def test_the_first_token_budget_of_a_stream_is_hard(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=1.0))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud) as router:
            started = loop.time()
            with pytest.raises(DeadlineExceeded, match="first token"):
                async for _ in router.stream("Hello", data_class="public", first_token_budget="300ms"):
                    pass
            assert loop.time() - started == pytest.approx(0.3)

    run_in_virtual_time(main())
    assert cloud.calls[0].outcome == ["cancelled"]


def test_a_deadline_within_the_answer_hands_over_the_text_so_far(make_router: RouterMaker) -> None:
    slow = Script(words=("one ", "two ", "three ", "four "), first_after=0.1, every=0.4)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", slow)) as router:
            with pytest.raises(DeadlineExceeded) as whole:
                await router.generate("Hello", data_class="public", latency_budget=1.0)
            assert whole.value.partial == "one two three "
            seen = ""
            with pytest.raises(DeadlineExceeded) as streamed:
                async for chunk in router.stream("Hello", data_class="public", latency_budget=1.0):
                    seen += chunk.text
            assert seen == streamed.value.partial == "one two three "

    run_in_virtual_time(main())


def test_a_slow_reader_s_time_is_not_the_stream_s(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=tuple("abcdef"), every=0.1))

    async def main() -> None:
        text = ""
        async with make_router(cloud) as router:
            async for chunk in router.stream("Hello", data_class="public", latency_budget=1.0):
                text += chunk.text
                await asyncio.sleep(1.0)
        assert text == "abcdef"

    run_in_virtual_time(main())


def test_waiting_for_a_slot_counts_as_time(make_router: RouterMaker) -> None:
    from edgewise.backends import Capabilities
    from edgewise.core.request import Task

    one_at_a_time = Capabilities(tasks=frozenset({Task.GENERATE}), max_concurrency=1)
    phone = ScriptedBackend("phone", Script(first_after=0.4), capabilities=one_at_a_time)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(phone) as router:
            started = loop.time()
            results = await asyncio.gather(
                *(router.generate("Hello", data_class="secret", latency_budget=1.0) for _ in range(4)),
                return_exceptions=True,
            )
            assert loop.time() - started <= 1.0 + 1e-6
            assert [isinstance(result, DeadlineExceeded) for result in results] == [False, False, True, True]

    run_in_virtual_time(main())
    assert len(phone.calls) == 3  # the fourth never got the slot


def test_a_cancelled_call_stops_the_work_and_stays_cancelled(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone", SILENT)

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            call = asyncio.create_task(router.generate("Hello", data_class="public", latency_budget=100.0))
            await asyncio.sleep(0.5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0)

    run_in_virtual_time(main())
    assert cloud.calls[0].outcome == ["cancelled"]
