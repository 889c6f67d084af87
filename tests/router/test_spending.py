"""What requests cost is added up by the day and the month, and the policy can look at it."""

from __future__ import annotations

import asyncio
import gc
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edgewise.core.errors import RequestError
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.policies.facts import SpendingFacts
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.router.snapshot import Unreadable
from edgewise.router.spending import Spending
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

CONSUMER = """\
version: 1
models: {tiny: {source: "file:tiny.gguf"}}
backends:
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    location: {process_in: [US]}
    quality: 0.9
    price: {input: 0, output: 10000}                  # a cent a token, so that the test can count
  phone: {kind: llama_cpp, model: tiny, quality: 0.3}
policy:
  data_classes: {private: {process_in: [any]}}
  rules:
    - name: a low battery is spared
      when: device.battery_percent < 20 && !device.charging
      avoid: [device]
    - name: nothing is paid on a metered link
      when: connectivity.metered && request.priority == "low"
      deny: [cloud]
    - name: ten cents a day, and twenty-five a month
      when: spending.today_cents >= 10 || spending.month_cents >= 25
      deny: [cloud]
    - name: one at a time
      set: {hedge: false}
state_file: state.json
"""


class Calendar:
    """A wall clock that a test turns."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(datetime(2026, 3, 30, 9, 30))


def opened(folder: Path, calendar: Calendar, cloud: Script | None = None) -> AsyncRouter:
    backends = {"cloud": ScriptedBackend("cloud", cloud or Script(words=("four ", "words ", "of ", "text")))}
    backends["phone"] = ScriptedBackend("phone", Script(words=("nothing",)))
    return AsyncRouter(loads(CONSUMER, folder), backends=dict(backends), wall_clock=calendar)


def test_a_day_and_a_month_have_their_limits(tmp_path: Path, calendar: Calendar) -> None:
    async def ask(router: AsyncRouter) -> str:
        return (await router.generate("a text")).backend

    async def main() -> None:
        async with opened(tmp_path, calendar) as router:
            assert [await ask(router) for _ in range(4)] == ["cloud", "cloud", "cloud", "phone"]
            plan = await router.plan("a text")
            assert "'ten cents a day, and twenty-five a month' denies it" in plan.refusals[0].sentence
            calendar.now += timedelta(days=1)
            assert [await ask(router) for _ in range(4)] == ["cloud", "cloud", "cloud", "phone"]
            calendar.now += timedelta(days=1)  # the first of April
            assert [await ask(router) for _ in range(3)] == ["cloud", "cloud", "cloud"]
            calendar.now += timedelta(days=1)
            assert [await ask(router) for _ in range(3)] == ["cloud", "cloud", "cloud"]
            calendar.now += timedelta(days=1)
            assert [await ask(router) for _ in range(2)] == ["cloud", "phone"], "28 cents in April"

    run_in_virtual_time(main())


def test_a_restart_forgets_nothing_that_was_spent(tmp_path: Path, calendar: Calendar) -> None:
    async def main() -> None:
        async with opened(tmp_path, calendar) as router:
            for _ in range(3):
                await router.generate("a text")
        async with opened(tmp_path, calendar) as router:
            assert (await router.generate("a text")).backend == "phone"

    run_in_virtual_time(main())


@pytest.mark.parametrize("leave", ["broken", "left"])
def test_what_an_answer_cost_that_nobody_got_counts_too(tmp_path: Path, calendar: Calendar, leave: str) -> None:
    lost = AttemptError(FailureKind.UNREACHABLE, "it broke")
    words = tuple(f"{number} " for number in range(20))
    script = Script(words=words, failure=lost, fails_after=12) if leave == "broken" else Script(words=words)

    async def main() -> None:
        async with opened(tmp_path, calendar, script) as router:
            try:
                read = 0
                async for _ in router.stream("a text", backend="cloud"):
                    read += 1
                    if leave == "left" and read == 12:
                        break
            except RequestError:
                pass
            gc.collect()
            await asyncio.sleep(1.0)
            assert (await router.generate("a text")).backend == "phone"

    run_in_virtual_time(main())


def test_cents_are_whole_and_a_begun_one_counts(calendar: Calendar) -> None:
    spending = Spending(calendar)
    today = calendar.now.date()
    assert spending.facts(today) == SpendingFacts(0, 0)
    for dollars, cents in ((0.0001, 1), (0.0099, 1), (0.0001, 2), (0.2, 22), (0.0, 22)):
        spending.add(dollars)
        assert spending.facts(today) == SpendingFacts(cents, cents), dollars


def test_a_hundred_tenths_of_a_cent_are_ten_cents(calendar: Calendar) -> None:
    spending = Spending(calendar)
    for _ in range(100):
        spending.add(0.001)
    assert spending.facts(calendar.now.date()).today_cents == 10


def test_a_clock_that_was_wrong_for_a_while_neither_loses_nor_keeps_what_was_spent(calendar: Calendar) -> None:
    spending = Spending(calendar)
    right = calendar.now
    spending.add(0.05)
    calendar.now = right + timedelta(days=4000)
    spending.add(0.07)
    calendar.now = right
    assert spending.facts(right.date()) == SpendingFacts(5, 5)
    for day in range(100):
        calendar.now = right + timedelta(days=day)
        spending.add(0.01)
    snapshot = spending.snapshot()
    assert isinstance(snapshot, dict)
    assert len(snapshot) == 62


def test_a_snapshot_taken_back_says_the_same(calendar: Calendar) -> None:
    spending, other = Spending(calendar), Spending(calendar)
    spending.add(0.05)
    calendar.now -= timedelta(days=1)
    spending.add(0.07)
    other.restore(spending.snapshot(), 12345.0)
    for day in (29, 30):
        today = datetime(2026, 3, day).date()
        assert other.facts(today) == spending.facts(today)


@pytest.mark.parametrize("value", [None, [], {"yesterday": 1.0}, {"2026-03-30": -1.0}, {"2026-03-30": "much"}])
def test_a_snapshot_that_cannot_be_one_leaves_it_as_it_was(calendar: Calendar, value: object) -> None:
    spending = Spending(calendar)
    spending.add(0.05)
    with pytest.raises(Unreadable):
        spending.restore(value, 0.0)  # type: ignore[arg-type]  # it may be anything
    assert spending.facts(calendar.now.date()).today_cents == 5
