"""An outage is not made worse by those who suffer from it, and is over soon after it ends."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import pytest

from edgewise.router import AsyncRouter, AttemptError, EdgewiseError, FailureKind
from edgewise.testing import Script, ScriptedBackend, VirtualTimeLoop

from .conftest import RouterMaker

BEGINS, ENDS = 5.0, 25.0
"""Seconds of the run: an outage of twenty seconds, in a load that does not abate."""

GOOD = Script(first_after=0.1, every=0.01)


def _failing(kind: FailureKind, retry_after: float | None = None) -> Script:
    return Script(failure=AttemptError(kind, "an outage", retry_after=retry_after), first_after=0.01)


OUTAGES = {
    "refuses connections": _failing(FailureKind.UNREACHABLE),
    "is overloaded": _failing(FailureKind.OVERLOADED),
    "is overloaded and asks to wait": _failing(FailureKind.OVERLOADED, retry_after=0.2),
    "gives up what it began": _failing(FailureKind.CONFLICT),
    "fails": _failing(FailureKind.INTERNAL),
    "is silent": Script(silent_after=0),
    "falls silent": Script(silent_after=1),
    "cuts its answers": Script(words=("a ",), ends_without_finish=True),
    "drips": Script(first_after=2.0, every=2.0),
}


class Failing(ScriptedBackend):
    """Goes through an outage. Keeps the times at which calls reached it."""

    def __init__(self, outage: Script) -> None:
        self.reached: list[float] = []
        super().__init__("cloud", self._now)
        self._outage = outage

    def _now(self, number: int) -> Script:
        now = asyncio.get_running_loop().time()
        self.reached.append(now)
        return self._outage if BEGINS <= now < ENDS else GOOD

    def calls_between(self, begin: float, end: float) -> int:
        """How many calls reached it in that time."""
        return sum(begin <= at < end for at in self.reached)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when it began, and who answered it."""

    at: float
    answered_by: str | None


async def _ask(router: AsyncRouter, streaming: bool) -> Asked:
    begun = asyncio.get_running_loop().time()
    try:
        if not streaming:
            answer = await router.generate("Hello", data_class="public", latency_budget=3.0)
            return Asked(begun, answer.backend)
        backend = None
        async for chunk in router.stream("Hello", data_class="public", latency_budget=3.0):
            backend = chunk.answer.backend if chunk.answer else None
        return Asked(begun, backend)
    except EdgewiseError:
        return Asked(begun, None)


async def _load(router: AsyncRouter, rate: float, until: float, streaming: bool) -> list[Asked]:
    loop = asyncio.get_running_loop()
    async with router, asyncio.TaskGroup() as callers:
        asked = []
        while loop.time() < until:
            asked.append(callers.create_task(_ask(router, streaming)))
            await asyncio.sleep(1.0 / rate)
    return [each.result() for each in asked]


def _run(router: AsyncRouter, rate: float, until: float, *, streaming: bool = False) -> list[Asked]:
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(begins_at=0.0)) as runner:
        return runner.run(_load(router, rate, until, streaming))


def _answered(asked: list[Asked], begin: float, end: float) -> float:
    """The share of the requests begun in that time that were answered."""
    within = [each for each in asked if begin <= each.at < end]
    return sum(each.answered_by is not None for each in within) / len(within)


@pytest.mark.parametrize(("rate", "streaming"), [(11.0, False), (25.0, True)], ids=["11/s", "25/s, streamed"])
@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
@pytest.mark.parametrize("with_phone", [False, True], ids=["alone", "beside a device"])
def test_an_outage_sees_few_extra_calls_and_is_over_soon(
    make_router: RouterMaker, outage: Script, rate: float, streaming: bool, with_phone: bool
) -> None:
    cloud = Failing(outage)
    phone = ScriptedBackend("phone", GOOD)
    router = make_router(cloud, phone) if with_phone else make_router(cloud)
    asked = _run(router, rate, ENDS + 8.0, streaming=streaming)
    requests = sum(BEGINS <= each.at < ENDS for each in asked)
    assert cloud.calls_between(BEGINS, ENDS) < 1.2 * requests
    assert _answered(asked, 0.0, BEGINS - 2.0) == 1.0
    assert _answered(asked, ENDS + 5.0, math.inf) == 1.0
    if with_phone:
        assert _answered(asked, BEGINS, ENDS) == 1.0


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_recovered_backend_has_its_work_back_though_another_did_it_well(
    make_router: RouterMaker, outage: Script
) -> None:
    asked = _run(make_router(Failing(outage), ScriptedBackend("phone", GOOD)), 11.0, ENDS + 60.0)
    assert {each.answered_by for each in asked if each.at >= ENDS + 55.0} == {"cloud"}
