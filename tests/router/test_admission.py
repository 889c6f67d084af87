"""Who waits at a busy backend, in which order, and who is told at once that it is no use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgewise.backends import Capabilities
from edgewise.core.failure import AttemptError
from edgewise.core.request import Priority, Task
from edgewise.router import DeadlineExceeded, Overloaded
from edgewise.router.execution.slots import Slots, Turn
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker

ONE = Capabilities(tasks=frozenset(Task), continues=True, max_concurrency=1)


def test_higher_priorities_go_first_and_a_cancelled_wait_leaves_no_gap() -> None:
    async def main() -> None:
        slots, order = Slots(1), []

        async def run(name: str, priority: Priority) -> None:
            await slots.take(Turn(priority))
            order.append(name)
            await asyncio.sleep(1.0)
            slots.give_back()

        plans = (("first", Priority.LOW), ("low", Priority.LOW), ("gone", Priority.HIGH), ("high", Priority.HIGH))
        tasks = [asyncio.create_task(run(*plan)) for plan in plans]
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["first", "high", "low"]
        assert (slots.running, slots.waiting) == (0, 0)

    run_in_virtual_time(main())


def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on() -> None:
    async def main() -> None:
        slots = Slots(1)
        await slots.take(Turn(Priority.NORMAL))
        unlucky, lucky = (asyncio.create_task(slots.take(Turn(Priority.NORMAL))) for _ in range(2))
        await asyncio.sleep(0)
        slots.give_back()  # unlucky's turn
        unlucky.cancel()
        await lucky
        assert (slots.running, slots.waiting) == (1, 0)

    run_in_virtual_time(main())


def test_a_newcomer_is_told_how_many_have_their_turn_before_it() -> None:
    async def main() -> None:
        slots = Slots(2)
        assert slots.ahead(Priority.HIGH) == 0.0
        for _ in range(2):
            assert slots.free
            await slots.take(Turn(Priority.LOW))
        assert not slots.free
        waiting = [
            asyncio.create_task(slots.take(Turn(priority)))
            for priority in (Priority.HIGH, Priority.NORMAL, Priority.NORMAL, Priority.LOW)
        ]
        await asyncio.sleep(0)
        assert [slots.before(priority) for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)] == [3, 5, 6]
        assert slots.ahead(Priority.HIGH) == 1.0
        assert slots.ahead(Priority.LOW) == 2.5
        slots.promised += 3
        assert slots.ahead(Priority.HIGH) == 2.5
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (slots.running, slots.waiting) == (2, 0)

    run_in_virtual_time(main())


def test_who_waits_may_be_hastened_and_never_held_back() -> None:
    async def main() -> None:
        slots, order = Slots(1), []
        await slots.take(Turn(Priority.NORMAL))
        turns = {
            name: Turn(priority)
            for name, priority in (("a", Priority.NORMAL), ("b", Priority.LOW), ("c", Priority.NORMAL))
        }

        async def run(name: str) -> None:
            await slots.take(turns[name])
            order.append(name)
            slots.give_back()

        tasks = [asyncio.create_task(run(name)) for name in turns]
        await asyncio.sleep(0)
        slots.hasten(turns["a"], Priority.LOW)
        slots.hasten(turns["a"], Priority.NORMAL)
        slots.hasten(turns["b"], Priority.HIGH)
        assert slots.waiting == 3
        assert slots.before(Priority.HIGH) == 2
        slots.give_back()
        await asyncio.gather(*tasks)
        assert order == ["b", "a", "c"]
        slots.hasten(turns["a"], Priority.HIGH)  # its turn has come: nothing is left to hasten
        assert (slots.running, slots.waiting) == (0, 0)
        assert slots.free

    run_in_virtual_time(main())


def test_who_gives_up_is_hastened_no_more() -> None:
    async def main() -> None:
        slots, turn = Slots(1), Turn(Priority.NORMAL)
        await slots.take(Turn(Priority.NORMAL))
        waiting = asyncio.create_task(slots.take(turn))
        await asyncio.sleep(0)
        waiting.cancel()
        slots.hasten(turn, Priority.HIGH)
        await asyncio.wait([waiting])
        assert (slots.running, slots.waiting) == (1, 0)
        assert [slots.before(priority) for priority in Priority] == [1, 1, 1]

    run_in_virtual_time(main())


def test_the_queue_is_bounded() -> None:
    async def main() -> None:
        slots = Slots(1)
        await slots.take(Turn(Priority.NORMAL))
        tasks = [asyncio.create_task(slots.take(Turn(Priority.NORMAL))) for _ in range(1024)]
        await asyncio.sleep(0)
        assert (slots.waiting, slots.full) == (1024, True)
        with pytest.raises(AttemptError, match="wait"):
            await slots.take(Turn(Priority.HIGH))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.waiting == 0

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    "budgets", [{"latency_budget": 6.2}, {"latency_budget": 60.0, "first_token_budget": 6.2}], ids=["whole", "first"]
)
def test_who_cannot_start_in_time_is_told_at_once(make_router: RouterMaker, budgets: dict[str, Any]) -> None:
    phone = ScriptedBackend("phone", Script(first_after=2.0), capabilities=ONE)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(phone) as router:
            for _ in range(60):
                await router.generate("Hello", data_class="secret")
            started = loop.time()
            ends: list[float] = []

            async def ask() -> str:
                try:
                    return (await router.generate("Hello", data_class="secret", **budgets)).backend
                except Overloaded:
                    ends.append(loop.time() - started)
                    return "told"
                except DeadlineExceeded:
                    return "late"

            results = await asyncio.gather(*(ask() for _ in range(8)))
            assert results.count("phone") == 3
            assert results.count("told") >= 4  # and at most one was misjudged
            assert max(ends) < 0.001

    run_in_virtual_time(main())


def test_where_a_place_is_free_nobody_is_refused_for_being_likely_late(make_router: RouterMaker) -> None:
    """The only one there is tries, as late as it may be."""
    quick, slow = Script(first_after=0.5), Script(first_after=3.0)
    phone = ScriptedBackend("phone", lambda number: quick if number == 60 else slow, capabilities=ONE)

    async def main() -> None:
        async with make_router(phone) as router:
            for _ in range(60):
                await router.generate("Hello", data_class="secret")
            assert (await router.generate("Hello", data_class="secret", latency_budget=1.0)).backend == "phone"
            with pytest.raises(DeadlineExceeded):
                await router.generate("Hello", data_class="secret", latency_budget=1.0)

    run_in_virtual_time(main())


def test_requests_do_not_all_count_on_one_free_engine(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(silent_after=0))
    phone = ScriptedBackend("phone", Script(first_after=1.0), capabilities=ONE)

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            for _ in range(60):
                await router.generate("Hello", data_class="secret")
            calls = (router.generate("Hello", data_class="public", latency_budget=12.0) for _ in range(6))
            answers = await asyncio.gather(*calls)
            assert {answer.backend for answer in answers} == {"phone"}
            steps = [answer.decision.steps[-1].starts_at for answer in answers]
            # Each is planned to start earlier than the one before, so that all fit one after the other.
            moments = [moment for moment in steps if moment is not None]
            assert moments == sorted(moments, reverse=True)
            assert moments[0] - moments[-1] > 3.0

    run_in_virtual_time(main())


def test_the_urgent_does_not_wait_behind_those_that_it_overtakes(make_router: RouterMaker) -> None:
    phone = ScriptedBackend("phone", Script(first_after=1.0), capabilities=ONE)

    async def main() -> None:
        async with make_router(phone) as router:
            for _ in range(60):
                await router.generate("Hello", data_class="secret")
            low = [asyncio.create_task(router.generate("Hello", data_class="secret", priority="low")) for _ in range(8)]
            await asyncio.sleep(0)
            planned = await router.plan("Hello", data_class="secret", priority="high")
            assert planned.steps[0].prediction.total.median() < 3.0
            answer = await router.generate("Hello", data_class="secret", priority="high", latency_budget=3.5)
            assert answer.decision.ended is not None
            assert answer.decision.ended < 2.5
            await asyncio.gather(*low)

    run_in_virtual_time(main())
