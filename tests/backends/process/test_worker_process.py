"""A supervised worker, with an engine that does what the test asks."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest

from edgewise.backends import HealthState
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.process import worker_process
from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.frames import JsonObject
from edgewise.backends.process.replies import WINDOW
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.errors import ModelUnavailable
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority

from .conftest import PROBE, echo, failure_of, started


def _proc(worker: WorkerProcess, name: str) -> bytes:
    return Path(f"/proc/{worker.pid}/{name}").read_bytes()


async def test_a_stream_brings_all_events_in_order_and_a_large_payload_comes_back(worker: WorkerProcess) -> None:
    with await worker.stream(Parcel({"do": "count", "n": 1000})) as replies:
        numbers = [event.fields["number"] async for event in replies]
    assert numbers == list(range(1000))
    await echo(worker, os.urandom(5_000_000))


async def test_settings_arrive_and_the_engine_tells_of_itself(worker: WorkerProcess) -> None:
    assert worker.info == {"settings": {"setting": 1}, "pid": worker.pid}
    assert worker.health.state is HealthState.READY


async def test_a_question_is_answered_beside_a_running_call(worker: WorkerProcess) -> None:
    running = started(worker, "hold")
    await anext(running)
    assert (await worker.ask(Parcel({}, b"four"))).fields["length"] == 4
    with pytest.raises(AttemptError) as caught:
        await worker.ask(Parcel({"raise": True}))
    assert caught.value.kind is FailureKind.INTERNAL
    assert "KeyError" in str(caught.value)
    assert "secret" not in str(caught.value)
    await running.aclose()


async def test_a_question_that_takes_long_is_no_hang_and_holds_up_nothing_but_questions(tmp_path: Path) -> None:
    worker = WorkerProcess("probe", PROBE, {}, hang_after=0.5)
    await worker.start()
    before, go_on = worker.pid, tmp_path / "go-on"
    long = asyncio.create_task(worker.ask(Parcel({"until": str(go_on)})))
    given_up = asyncio.create_task(worker.ask(Parcel({"until": str(go_on)})))
    await asyncio.wait([long, given_up], timeout=0.5)
    given_up.cancel()
    await asyncio.wait([long], timeout=1.0)  # longer than a worker may be silent, or go on with a cancelled call
    await echo(worker)
    go_on.touch()
    async with asyncio.timeout(10):
        await long
        await worker.ask(Parcel({}))
    assert worker.pid == before
    await worker.stop()


async def test_an_engine_that_leaves_its_thread_fails_one_question(worker: WorkerProcess) -> None:
    before = worker.pid
    with pytest.raises(AttemptError, match="SystemExit"):
        async with asyncio.timeout(10):
            await worker.ask(Parcel({"leave": True}))
    await echo(worker)
    assert worker.pid == before


async def test_an_engine_error_names_its_type_and_quotes_nothing(worker: WorkerProcess) -> None:
    failure = await failure_of(worker, {"do": "fail", "text": "a secret"})
    assert failure.kind is FailureKind.INTERNAL
    assert "ValueError" in failure.sentence
    assert "secret" not in failure.sentence
    assert (await failure_of(worker, {"do": "panic"})).kind is FailureKind.INTERNAL
    assert (await failure_of(worker, {"do": "refuse"})).kind is FailureKind.CONTEXT_LENGTH
    await echo(worker)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
async def test_a_death_by_signal_fails_one_call_and_the_next_works(worker: WorkerProcess, name: str) -> None:
    before = worker.pid
    waiting = asyncio.create_task(echo(worker)) if name == "SIGSEGV" else None
    failure = await failure_of(worker, {"do": "die", "signal": int(signal.Signals[name])})
    assert failure.kind is FailureKind.CRASHED
    assert name in failure.sentence
    await echo(worker)
    assert worker.pid not in (None, before)
    if waiting is not None:
        await waiting


async def test_an_exit_is_told_apart(worker: WorkerProcess) -> None:
    failure = await failure_of(worker, {"do": "leave"})
    assert failure.kind is FailureKind.CRASHED
    assert "status 3" in failure.sentence
    await echo(worker)


async def test_nonsense_on_the_socket_is_a_typed_failure(worker: WorkerProcess) -> None:
    assert (await failure_of(worker, {"do": "nonsense"})).kind is FailureKind.PROTOCOL
    await echo(worker)


async def test_a_worker_that_stands_still_is_noticed_and_replaced(worker: WorkerProcess) -> None:
    running = started(worker, "hold")
    await anext(running)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(AttemptError) as caught:
        async with asyncio.timeout(10):
            await anext(running)
    assert caught.value.kind is FailureKind.STALLED
    await echo(worker)


async def test_native_code_that_keeps_the_interpreter_is_a_hang_and_one_that_does_not_is_none(
    worker: WorkerProcess,
) -> None:
    assert (await failure_of(worker, {"do": "hold_interpreter"})).kind is FailureKind.STALLED
    busy = started(worker, "native_sleep")
    await anext(busy)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):  # twice as long as a hang takes to be noticed
            await anext(busy)
    assert worker.health.state is HealthState.READY


async def test_native_code_that_works_on_for_nobody_is_ended_and_the_next_call_works(worker: WorkerProcess) -> None:
    busy = started(worker, "native_sleep")
    await anext(busy)
    before = worker.pid
    await busy.aclose()
    await echo(worker)
    assert worker.pid != before


async def test_a_loading_engine_tells_how_far_it_is(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    worker = WorkerProcess("probe", PROBE, {"load": "slowly", "until": str(go_on)})
    starting = asyncio.create_task(worker.start())
    async with asyncio.timeout(20):
        while worker.health.progress is None:  # noqa: ASYNC110  # health is looked at, never announced
            await asyncio.sleep(0.005)
    loading = worker.health
    assert (loading.state, loading.progress) == (HealthState.LOADING, 0.25)
    assert "25%" in loading.sentence
    go_on.touch()
    await starting
    ready = worker.health
    assert (ready.state, ready.progress) == (HealthState.READY, None)
    await worker.stop()


async def test_leaving_a_stream_stops_the_engine_at_once_and_poisons_nothing(worker: WorkerProcess) -> None:
    clock = asyncio.get_running_loop().time
    for _ in range(5):
        running = started(worker, "hold")
        await anext(running)
        left_at = clock()
        await running.aclose()
        await echo(worker)
        assert clock() - left_at < 0.1


async def test_cancelling_the_task_that_reads_stops_the_engine(worker: WorkerProcess) -> None:
    reached = asyncio.Event()

    async def read() -> None:
        with await worker.stream(Parcel({"do": "hold"})) as replies:
            async for _ in replies:
                reached.set()

    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await echo(worker)


async def test_a_slow_reader_makes_the_engine_wait_and_can_still_cancel(worker: WorkerProcess) -> None:
    running = started(worker, "count_ahead")
    await anext(running)
    async with asyncio.timeout(10):
        while (await worker.ask(Parcel({}))).fields["produced"] <= WINDOW:
            pass
    for _ in range(100):
        assert (await worker.ask(Parcel({}))).fields["produced"] == WINDOW + 1
    await running.aclose()
    await echo(worker)


async def test_calls_go_by_priority_then_arrival_and_a_cancelled_waiter_is_forgotten(worker: WorkerProcess) -> None:
    running = started(worker, "hold")
    await anext(running)
    order: list[str] = []

    async def call(name: str, priority: Priority) -> None:
        await worker.unary(Parcel({"do": "echo"}), priority)
        order.append(name)

    names = [("low", Priority.LOW), ("first", Priority.NORMAL), ("gone", Priority.HIGH), ("second", Priority.NORMAL)]
    tasks = {name: asyncio.create_task(call(name, priority)) for name, priority in names}
    tasks["high"] = asyncio.create_task(call("high", Priority.HIGH))
    while worker.waiting < len(tasks):  # noqa: ASYNC110  # a place in a queue is no event
        await asyncio.sleep(0)
    tasks["gone"].cancel()
    await running.aclose()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert order == ["high", "first", "second", "low"]


async def test_a_call_may_come_before_the_start_is_over() -> None:
    worker = WorkerProcess("probe", PROBE, {})
    early = asyncio.create_task(echo(worker))
    await worker.start()
    await early
    await worker.stop()


async def test_a_model_that_loads_without_end_is_given_up() -> None:
    worker = WorkerProcess("probe", PROBE, {"load": "endlessly"}, hang_after=1.0, loading_seconds=0.5)
    async with asyncio.timeout(20):
        with pytest.raises(AttemptError, match=r"had not loaded its model after 0\.5 s of processor time") as caught:
            await worker.start()
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert worker.health.state is HealthState.DOWN
    await worker.stop()


@pytest.mark.parametrize("load", ["refuse", "raise", "leave"])
async def test_a_model_that_does_not_load_is_said_at_once_to_all(load: str) -> None:
    worker = WorkerProcess("probe", PROBE, {"load": load})
    early = asyncio.create_task(worker.unary(Parcel({"do": "echo"})))
    for failing in (worker.start(), early, worker.ask(Parcel({}))):
        with pytest.raises(AttemptError) as caught:
            async with asyncio.timeout(10):
                await failing
        assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
        assert "secret" not in str(caught.value)
    assert worker.health.state is HealthState.DOWN
    await worker.stop()


async def test_whatever_keeps_a_worker_from_its_start_is_told_to_all_that_wait(tmp_path: Path) -> None:
    def settings() -> JsonObject:
        raise PermissionError(errno.EACCES, "Permission denied", "a secret place")

    worker = WorkerProcess("probe", PROBE, settings)
    early = asyncio.create_task(worker.unary(Parcel({"do": "echo"})))
    for failing in (worker.start(), early):
        with pytest.raises(AttemptError, match="PermissionError") as caught:
            async with asyncio.timeout(10):
                await failing
        assert caught.value.kind is FailureKind.INTERNAL
        assert "secret" not in str(caught.value)
    assert worker.health.state is HealthState.DOWN
    await worker.stop()


async def test_only_a_native_crash_in_loading_speaks_against_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_CRASHES_TO_GIVE_UP", 1)
    for how, damaged in (("crash", True), ("kill", False)):
        worker = WorkerProcess("probe", PROBE, {"load": how})
        with pytest.raises(AttemptError) as caught:
            await worker.start()
        assert ("the file may be damaged" in caught.value.sentence) is damaged
        await worker.stop()


async def test_an_engine_that_does_not_exist_is_a_typed_failure() -> None:
    worker = WorkerProcess("probe", "no_such_module:Engine", {})
    with pytest.raises(AttemptError, match="ModuleNotFoundError"):
        await worker.start()
    await worker.stop()


async def test_after_a_native_crash_the_other_settings_are_used() -> None:
    worker = WorkerProcess("probe", PROBE, {"load": "crash", "kept": 1}, settings_after_crash={"load": "well"})
    await worker.start()
    assert worker.info["settings"] == {"load": "well", "kept": 1}
    await worker.stop()


@pytest.mark.parametrize("ended_by", ["a crash", "having nothing to do"])
async def test_a_process_that_comes_back_opens_nothing_that_was_altered_meanwhile(
    tmp_path: Path, ended_by: str
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    proven = ModelSettings(f"file:{file}", hashlib.sha256(b"weights").hexdigest())
    model = ModelFile("small", proven, tmp_path)

    def settings() -> JsonObject:
        return {"path": str(model.verify())}

    idle = 0.1 if ended_by != "a crash" else None
    worker = WorkerProcess("probe", PROBE, settings, idle_unload=idle)
    await worker.start()
    file.write_bytes(b"poisons")
    if ended_by == "a crash":
        await failure_of(worker, {"do": "die", "signal": int(signal.SIGKILL)})
    async with asyncio.timeout(10):
        while worker.pid is not None:  # noqa: ASYNC110  # an end is no event
            await asyncio.sleep(0)
    again = await failure_of(worker, {"do": "echo"})
    with pytest.raises(ModelUnavailable) as first:
        ModelFile("small", proven, tmp_path).verify()
    assert again.kind is FailureKind.MODEL_UNAVAILABLE
    assert again.sentence.startswith(str(first.value))
    assert worker.health.state is HealthState.DOWN
    assert worker.health.sentence == again.sentence
    await worker.stop()


async def test_a_worker_beyond_its_memory_limit_is_ended_with_the_reason_and_comes_back() -> None:
    worker = WorkerProcess("probe", PROBE, {}, memory_limit=400 << 20)
    await worker.start()
    beyond = await failure_of(worker, {"do": "take_memory", "n": 500 << 20})
    assert beyond.kind is FailureKind.CRASHED
    assert "more than its limit of 400.0 MiB" in str(beyond)
    await echo(worker)
    await worker.stop()


async def test_five_crashes_in_a_minute_are_enough_and_a_new_start_tries_again() -> None:
    worker = WorkerProcess("probe", PROBE, {})
    await worker.start()
    for _ in range(5):
        await failure_of(worker, {"do": "die", "signal": int(signal.SIGSEGV)})
    failure = await failure_of(worker, {"do": "echo"})
    assert failure.kind is FailureKind.CRASHED
    assert "5 times" in failure.sentence
    assert worker.health.state is HealthState.DOWN
    await worker.start()
    await echo(worker)
    await worker.stop()


async def _rested(worker: WorkerProcess) -> None:
    async with asyncio.timeout(10):
        while worker.health.state is HealthState.DOWN:  # noqa: ASYNC110  # waits for a state, which is no event
            await asyncio.sleep(0)


async def test_what_crashes_too_often_rests_twice_as_long_each_time_and_then_serves_the_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_process, "_CRASHES_TO_GIVE_UP", 2)
    monkeypatch.setattr(worker_process, "_FIRST_REST", 0.1)
    worker = WorkerProcess("probe", PROBE, {})
    await worker.start()
    for rest in ("100 ms", "200 ms"):
        for _ in range(2):
            await failure_of(worker, {"do": "die", "signal": int(signal.SIGKILL)})
        async with asyncio.timeout(10):
            while worker.health.state is not HealthState.DOWN:  # noqa: ASYNC110  # waits for a state
                await asyncio.sleep(0)
        refused = await failure_of(worker, {"do": "echo"})
        assert refused.kind is FailureKind.CRASHED
        assert f"2 times within a minute; the first call after {rest} tries again" in refused.sentence
        assert worker.health.sentence == refused.sentence
        await _rested(worker)
        assert worker.pid is None, "it was started for nobody"
        await echo(worker)
    await worker.stop()


async def test_a_model_that_was_brought_is_found_by_the_first_call_after_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker_process, "_UNTIL_MENDED", 0.1)
    file = tmp_path / "weights"
    model = ModelFile("small", ModelSettings(f"file:{file}"), tmp_path)
    worker = WorkerProcess("probe", PROBE, lambda: {"path": str(model.verify())})
    with pytest.raises(AttemptError, match=r"has no file at .*; the first call after 100 ms tries again"):
        await worker.start()
    await _rested(worker)
    assert (await failure_of(worker, {"do": "echo"})).kind is FailureKind.MODEL_UNAVAILABLE
    assert worker.health.state is HealthState.DOWN
    file.write_bytes(b"weights")
    await _rested(worker)
    await echo(worker)
    await worker.stop()


async def test_a_worker_that_rests_can_be_stopped_and_started() -> None:
    worker = WorkerProcess("probe", PROBE, {"load": "refuse"})
    for _ in range(2):
        with pytest.raises(AttemptError):
            await worker.start()
    await worker.stop()
    assert (await failure_of(worker, {"do": "echo"})).kind is FailureKind.PREEMPTED


@pytest.mark.parametrize("state", ["idle", "native_sleep", "hold_interpreter", "stopped"])
async def test_stop_ends_the_process_within_a_second_and_all_calls(state: str) -> None:
    worker = WorkerProcess("probe", PROBE, {})
    await worker.start()
    pid = worker.pid
    assert pid is not None
    running = started(worker, state if state in ("native_sleep", "hold_interpreter") else "hold")
    await anext(running)
    if state == "stopped":
        os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(worker.unary(Parcel({"do": "echo"})))
    while not worker.waiting:  # noqa: ASYNC110  # a place in a queue is no event
        await asyncio.sleep(0)
    async with asyncio.timeout(1.2):
        await worker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    for failing in (anext(running), waiting):
        with pytest.raises(AttemptError) as caught:
            await failing
        assert caught.value.kind is FailureKind.PREEMPTED
    await worker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_worker_is_hardened_and_takes_no_part_in_the_applications_terminal(worker: WorkerProcess) -> None:
    account = (await worker.unary(Parcel({"do": "account"}))).fields
    assert account == {
        "core": [0, 0],
        "dumpable": 0,
        "nice": os.nice(0) + 5,
        "ended_sooner": min(1000, int(Path("/proc/self/oom_score_adj").read_text()) + 300),
        "ends_itself_when_mute": True,
        "session": True,
        "ignores_interrupt": True,
        "outputs": ["/dev/null"] * 3,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_nothing_of_a_call_is_on_the_command_line_or_in_the_environment(worker: WorkerProcess) -> None:
    secret = "xyzzy-the-content"
    await worker.unary(Parcel({"do": "echo", "text": secret}, secret.encode()))
    seen = {name: _proc(worker, name) for name in ("cmdline", "environ")}
    assert b"edgewise" in seen["cmdline"]
    assert not any(secret.encode() in text for text in seen.values())
    assert b"setting" not in seen["cmdline"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_applications_secrets_are_not_in_the_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a native library may need is; the rest of the application's environment is nobody's business."""
    for name in ("CLOUD_TOKEN", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "LLAMA_API_KEY", "ORT_CLOUD_KEY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = WorkerProcess("probe", PROBE, {})
    try:
        await worker.start()
        environment = _proc(worker, "environ").split(b"\0")
    finally:
        await worker.stop()
    assert b"OMP_NUM_THREADS=1" in environment
    assert any(variable.startswith(b"PATH=") for variable in environment)
    assert not [variable for variable in environment if b"a-secret" in variable]


async def test_a_call_too_large_for_a_frame_is_the_callers_mistake(worker: WorkerProcess) -> None:
    with pytest.raises(AttemptError) as caught:
        await worker.unary(Parcel({"do": "echo"}, bytes((256 << 20) + 1)))
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    await echo(worker)
