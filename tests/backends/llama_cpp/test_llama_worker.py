"""llama.cpp's worker: cancelled, killed, given damaged files."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgewise.backends import CallContext, HealthState
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ModelName

if TYPE_CHECKING:
    from tests.backends.llama_cpp.conftest import Asker

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTEXT = CallContext("request", Deadline(1e12))
FRANCE = Message.user("What is the capital of France?")
LONG = Message.user("All work and no play makes Jack a dull boy. " * 150)


async def _seconds_until_idle(asker: Asker) -> float:
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.timeout(10):
        while asker.backend.worker.running:  # noqa: ASYNC110  # measures, to the turn of the loop
            await asyncio.sleep(0)
    return clock() - start


async def _cancel_in_decode(asker: Asker) -> float:
    call = GenerateInput((Message.user("Count to a thousand."),), max_output_tokens=1000)
    stream = asker.backend.generate(call, CONTEXT)
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    return await _seconds_until_idle(asker)


async def _cancel_in_prefill(asker: Asker) -> float:
    read = asyncio.ensure_future(anext(asker.backend.generate(GenerateInput((LONG,), seed=1), CONTEXT)))
    while not asker.backend.worker.running:  # noqa: ASYNC110  # a turn is no event
        await asyncio.sleep(0)
    # The worker takes what it is sent in order: by now it has had the call for longer than tokenising takes.
    with pytest.raises(AttemptError):
        await asker.answer(Message.user("too long " * 3000))
    assert not read.done()
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    return await _seconds_until_idle(asker)


@pytest.mark.parametrize("cancel", [_cancel_in_decode, _cancel_in_prefill])
async def test_a_cancelled_call_leaves_the_engine_idle_at_once_and_poisons_nothing(phone: Asker, cancel) -> None:  # type: ignore[no-untyped-def]
    expected = await phone.answer(FRANCE)
    seconds = [await cancel(phone) for _ in range(3)]
    # On a machine busy with other work the scheduler may delay one of them.
    assert sorted(seconds)[1] < 0.1
    assert await phone.answer(FRANCE) == expected


async def test_a_crash_in_a_generation_fails_it_and_the_next_works(small_phone: Asker) -> None:
    expected = await small_phone.answer(FRANCE)
    worker = small_phone.backend.worker
    stream = small_phone.backend.generate(GenerateInput((FRANCE,), max_output_tokens=80), CONTEXT)
    await anext(stream)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(AttemptError, match="SIGSEGV") as caught:
        _ = [event async for event in stream]
    assert caught.value.kind is FailureKind.CRASHED
    assert await small_phone.answer(FRANCE) == expected
    assert small_phone.backend.health().state is HealthState.READY


@pytest.mark.parametrize(("number", "kept"), [(signal.SIGILL, False), (signal.SIGKILL, True)])
async def test_only_after_a_native_crash_it_comes_back_without_repacked_weights(
    small_phone: Asker, number: signal.Signals, kept: bool
) -> None:
    worker = small_phone.backend.worker
    assert worker.info["use_extra_buffers"]
    assert worker.pid is not None
    stream = small_phone.backend.generate(GenerateInput((FRANCE,), max_output_tokens=80), CONTEXT)
    await anext(stream)
    os.kill(worker.pid, number)
    with pytest.raises(AttemptError, match=number.name):
        _ = [event async for event in stream]
    await small_phone.answer(FRANCE, max_output_tokens=1)
    assert worker.info["use_extra_buffers"] is kept


async def test_a_slow_reader_gets_everything(phone: Asker) -> None:
    expected, _ = await phone.answer(FRANCE)
    call = GenerateInput((FRANCE,), temperature=0.0, seed=1, max_output_tokens=24)
    text = ""
    async for event in phone.backend.generate(call, CONTEXT):
        with pytest.raises(AttemptError):
            await phone.answer(Message.user("too long " * 3000))
        text += getattr(event, "text", "")
    assert text == expected


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_nothing_of_a_call_is_on_the_command_line_or_in_the_environment(phone: Asker) -> None:
    await phone.answer(Message.user("xyzzy-the-content"), max_output_tokens=1)
    for name in ("cmdline", "environ"):
        seen = Path(f"/proc/{phone.backend.worker.pid}/{name}").read_bytes()  # not on a disk
        assert b"xyzzy" not in seen
        assert name == "environ" or b".gguf" not in seen


@pytest.mark.parametrize("damage", ["missing", "altered", "cut", "cut in its header", "no model", "garbled"])
async def test_a_damaged_model_is_a_typed_failure(damage: str, model_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    match damage:
        case "altered":
            path.write_bytes(model_bytes[:100_000])
        case "cut":
            path.write_bytes(model_bytes[: len(model_bytes) // 2])
        case "cut in its header":
            path.write_bytes(model_bytes[:5000])
        case "no model":
            path.write_bytes(b"This is no model.")
        case "garbled":
            path.write_bytes(model_bytes[:8] + b"\xff" * 4096 + model_bytes[5000:100_000])
    sha256 = "0" * 64 if damage == "altered" else None
    model = ModelFile("smollm2", ModelSettings(f"file:{path}", sha256), tmp_path)
    backend = LlamaCppBackend("phone", LlamaCppSettings(ModelName("smollm2")), model)
    with pytest.raises(AttemptError, match="smollm2") as caught:
        async with asyncio.timeout(20):
            await backend.start()
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert backend.health().state is HealthState.DOWN
    with pytest.raises(AttemptError):
        await anext(backend.generate(GenerateInput((FRANCE,)), CONTEXT))
    await backend.stop()


async def test_without_llama_cpp_the_failure_says_what_to_install(
    phone: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    backend = LlamaCppBackend("phone", LlamaCppSettings(ModelName("smollm2")), phone.backend._model)
    with pytest.raises(AttemptError, match=r'pip install "edgewise\[llama\]"') as caught:
        await backend.start()
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    await backend.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a stranger's end by a pidfd")
async def test_a_killed_application_leaves_no_worker_in_mid_generation() -> None:
    program = Path(__file__).parent / "_application.py"

    def run_and_kill() -> bool:
        with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as application:
            assert application.stdout is not None
            worker = os.pidfd_open(int(application.stdout.readline()))
            application.kill()
        return bool(select.select([worker], [], [], 5)[0])

    assert await asyncio.to_thread(run_and_kill)


async def test_reading_a_configuration_loads_no_engine() -> None:
    heavy = ("llama_cpp", "numpy", "asyncio", "jinja2", "subprocess")
    program = f"import sys, edgewise.backends.llama_cpp; print([m for m in {heavy} if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert (await process.communicate())[0] == b"[]\n"
