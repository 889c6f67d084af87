"""Results by a callback: each once it has ended, in this process or a later one, until it was dealt with."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from edgewise.router import OutboxError, Router
from edgewise.router.outbox import Result
from edgewise.router.outbox.delivery import AGAIN_AFTER, LOOK_EVERY
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker


def text(result: Result) -> str:
    return result.answer.text if result.answer is not None else f"no answer: {result.error and result.error.reason}"


def test_results_come_as_they_are_there_those_of_an_earlier_process_first(make_router: RouterMaker) -> None:
    told: list[tuple[str, str]] = []

    async def tell(result: Result) -> None:
        told.append((result.receipt, text(result)))

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            early = await router.submit("Hello")
            assert await router.result(early, timeout="1h") is not None
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            router.connectivity.force("offline")
            late = await router.submit("Hello again")
            cancelled = await router.submit("never mind")
            expired = await router.submit("too late", ttl="1h")
            router.on_result(tell)
            await asyncio.sleep(1)
            assert told == [(early, "a scripted answer")]
            await router.cancel(cancelled)
            await asyncio.sleep(0.1)
            assert told[1:] == [(cancelled, "no answer: cancelled")]
            await asyncio.sleep(3600 + 2 * LOOK_EVERY)
            assert told[2:] == [(expired, "no answer: expired")]
            router.connectivity.force(None)
            await asyncio.sleep(5)
            assert told[3:] == [(late, "a scripted answer")]
            with pytest.raises(OutboxError, match="callback"):
                router.on_result(tell)
        async with make_router(ScriptedBackend("cloud")) as router:
            router.on_result(tell)
            await asyncio.sleep(60)
            assert len(told) == 4
            assert [each async for each in router.results()] == []

    run_in_virtual_time(main())


def test_a_router_that_waits_for_a_callback_at_its_end_reports_no_defect(
    make_router: RouterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(result: Result) -> None:
        try:
            await asyncio.sleep(9.0)
        finally:
            await asyncio.sleep(20.0)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            receipt = await router.submit("Hello")
            assert await router.result(receipt, timeout="1h") is not None
            router.on_result(tell)
            await asyncio.sleep(1.0)
            for _ in range(20):
                await router.submit("Hello again")

    run_in_virtual_time(main())
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_a_callback_that_fails_gets_its_result_again_and_holds_up_no_other(
    make_router: RouterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    async def tell(result: Result) -> None:
        told.append(result.receipt)
        if result.receipt == told[0] and told.count(told[0]) < 3:
            raise ValueError("Zebulon Quartz")

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            first, second = await router.submit("Hello"), await router.submit("Hello again")
            assert await router.result(second, timeout="1h") is not None
            router.on_result(tell)
            await asyncio.sleep(AGAIN_AFTER + 2 * LOOK_EVERY)
            assert told == [first, second, first]
            await asyncio.sleep(AGAIN_AFTER + 2 * LOOK_EVERY)
            assert told == [first, second, first, first]
            await asyncio.sleep(10 * AGAIN_AFTER)
            assert len(told) == 4

    run_in_virtual_time(main())
    assert "ValueError" in caplog.text
    assert "Zebulon" not in caplog.text


def test_a_process_that_ends_in_a_callback_leaves_the_result_to_the_next(make_router: RouterMaker) -> None:
    told: list[str] = []

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            receipt = await router.submit("Hello")
            assert await router.result(receipt, timeout="1h") is not None

            async def hang(result: Result) -> None:
                told.append("begun")
                await asyncio.sleep(3600)
                told.append("ended")

            router.on_result(hang)
            await asyncio.sleep(1)
        async with make_router(ScriptedBackend("cloud")) as router:

            async def tell(result: Result) -> None:
                told.append(result.receipt)

            router.on_result(tell)
            await asyncio.sleep(1)
        assert told == ["begun", receipt]

    run_in_virtual_time(main())


def test_one_of_two_processes_is_called_back(make_router: RouterMaker) -> None:
    told: list[str] = []

    async def main() -> None:
        async with (
            make_router(ScriptedBackend("cloud"), replay=True) as one,
            make_router(ScriptedBackend("cloud")) as other,
        ):

            async def slowly(result: Result) -> None:
                told.append(result.receipt)
                await asyncio.sleep(10)

            receipts = [await one.submit(f"note {number}") for number in range(5)]
            one.on_result(slowly)
            other.on_result(slowly)
            await asyncio.sleep(300)
            assert sorted(told) == sorted(receipts)

    run_in_virtual_time(main())


def test_the_blocking_router_calls_back_in_a_thread_that_may_use_it(make_router: RouterMaker, tmp_path: Path) -> None:
    configuration = make_router(ScriptedBackend("cloud")).configuration
    done = threading.Event()
    told: list[str] = []
    with Router(configuration, backends={"cloud": ScriptedBackend("cloud")}, replay=True) as router:

        def tell(result: Result) -> None:
            answer = router.result(result.receipt)
            told.append(answer.text if answer is not None else "")
            done.set()

        router.on_result(tell)
        router.submit("Hello")
        assert done.wait(30)
    assert told == ["a scripted answer"]
