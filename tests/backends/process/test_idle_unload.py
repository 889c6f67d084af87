"""An engine that has nothing to do gives its memory back, and comes back when it is asked for."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from edgewise.backends import HealthState
from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.failure import FailureKind

from .conftest import PROBE, echo, failure_of, started


async def _unloaded(worker: WorkerProcess) -> None:
    async with asyncio.timeout(10):
        while worker.health.state is not HealthState.LOADING or "unloaded" not in worker.health.sentence:  # noqa: ASYNC110  # waits for a state, which is no event
            await asyncio.sleep(0)


async def test_an_engine_with_nothing_to_do_is_unloaded_and_comes_back_with_the_next_call_or_question() -> None:
    worker = WorkerProcess("probe", PROBE, {}, idle_unload=0.2)
    await worker.start()
    first = worker.pid
    assert first is not None
    await _unloaded(worker)
    assert worker.pid is None
    assert not Path(f"/proc/{first}").exists()
    await echo(worker)
    assert worker.health.state is HealthState.READY
    await _unloaded(worker)
    async with asyncio.timeout(10):
        assert (await worker.ask(Parcel({}, b"four"))).fields["length"] == 4
    await worker.stop()


async def test_a_question_in_the_moment_of_unloading_waits_for_the_next_process() -> None:
    worker = WorkerProcess("probe", PROBE, {}, idle_unload=0.1)
    await worker.start()
    async with asyncio.timeout(10):
        while worker.pid is not None:  # noqa: ASYNC110  # the moment is no event
            await asyncio.sleep(0)

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("the event loop stood still")

    # A loop that turns without end would not see asyncio's own timeouts.
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(5)
    try:
        assert (await worker.ask(Parcel({}, b"four"))).fields["length"] == 4
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    await worker.stop()


async def test_an_engine_at_work_is_not_unloaded() -> None:
    worker = WorkerProcess("probe", PROBE, {}, idle_unload=0.1)
    await worker.start()
    pid = worker.pid
    loop = asyncio.get_running_loop()
    async for _ in started(worker, "hold"):
        passed = loop.create_future()
        loop.call_later(0.4, passed.set_result, None)
        await passed
        assert worker.pid == pid
        break
    await worker.stop()


async def test_an_engine_at_a_question_is_not_unloaded(tmp_path: Path) -> None:
    worker = WorkerProcess("probe", PROBE, {}, idle_unload=0.1)
    await worker.start()
    go_on = tmp_path / "go-on"
    question = asyncio.create_task(worker.ask(Parcel({"until": str(go_on)})))
    await asyncio.wait([question], timeout=0.4)
    go_on.touch()
    async with asyncio.timeout(10):
        await question
    await worker.stop()


async def test_an_unloaded_engine_can_be_stopped() -> None:
    worker = WorkerProcess("probe", PROBE, {}, idle_unload=0.1)
    await worker.start()
    await _unloaded(worker)
    await worker.stop()
    assert worker.health.state is HealthState.DOWN
    assert (await failure_of(worker, {"do": "echo"})).kind is FailureKind.PREEMPTED
