"""Callers that come, join, leave, release and run out of time at random: nothing is left of them, nobody is late."""

from __future__ import annotations

import asyncio
import random

import pytest

from edgewise.backends import CallContext
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority
from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router.serving.answers import generated
from edgewise.router.serving.callers import Caller
from edgewise.router.serving.served import Roster, Served
from edgewise.router.serving.works import Works
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import CALL, Scripted

CALLERS = 60
FAILS = Script(failure=AttemptError(FailureKind.INTERNAL, "it failed"), fails_after=1)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_left_of_a_crowd_that_shares_its_work(seed: int) -> None:
    source = random.Random(seed)

    def script(number: int) -> Script:
        return source.choice([Script(first_after=source.uniform(0.01, 1.0)), Script(silent_after=1), FAILS])

    async def main() -> None:
        backend = ScriptedBackend("m", script, capabilities=Scripted("m", limit=source.choice([1, 2])).capabilities)
        served = Roster({"m": backend}, max_waiting=8).named("m")
        works = Works(resume_within=source.choice([0.0, 1.0]), remember=5.0)
        late = await asyncio.gather(*(_call(source, works, served, number) for number in range(CALLERS)))
        assert max(late) <= 1e-6
        await asyncio.sleep(20.0)
        assert (served.admission.running, served.admission.waiting) == (0, 0)
        assert [each.outcome for each in backend.calls if not each.outcome] == []
        held = (works._running, works._kept, works._by_key, works._by_stream, works._labels)
        assert not any(held)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(main())


async def _call(source: random.Random, works: Works, served: Served, number: int) -> float:
    """One caller's call; by how many seconds it passed its deadline."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(source.uniform(0.0, 5.0))
    now, budget = loop.time(), source.uniform(0.1, 4.0)
    context = CallContext(
        f"request-{number}",
        Deadline(now + budget),
        priority=source.choice(list(Priority)),
        start_by=source.choice([None, Deadline(now + 0.5 * budget)]),
        first_by=source.choice([None, Deadline(now + 0.7 * budget)]),
    )
    stream, key = source.choice(["", f"stream-{number}"]), source.choice(["", "a", "b"])
    request = wire.GenerateRequest(call=wire.CallInfo(idempotency_key=key, stream=stream))
    try:
        work = works.join(Caller(), request, lambda demand: generated(served, CALL, demand, ""), context)
        messages = work.read(0)
        try:
            async with asyncio.timeout_at(now + budget):  # as gRPC does
                async for _ in messages:
                    if source.random() < 0.1:
                        break
        finally:
            await messages.aclose()
    except (AttemptError, TimeoutError):
        pass
    if stream and source.random() < 0.5:
        works.release(Caller(), stream)
    return loop.time() - now - budget
