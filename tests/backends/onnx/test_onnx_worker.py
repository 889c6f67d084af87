"""What happens to requests when the engine is cancelled, dies, or cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend, BackendHealth, CallContext, HealthState
from edgewise.backends.process.memory import own_memory
from edgewise.core.content import EmbedInput
from edgewise.core.failure import AttemptError, FailureKind

Start = Callable[..., Awaitable[Backend]]
Infer = Callable[..., Awaitable[dict[str, Any]]]
Workers = Callable[[], list[psutil.Process]]

ONES = numpy.ones((1, 3), dtype=numpy.float32)
FOR_EVER = {"rounds": numpy.int64(10**12), "v": numpy.eye(64, dtype=numpy.float32)}


async def begin(call: Awaitable[Any], worker: psutil.Process) -> asyncio.Task[Any]:
    """Start a call and return when the worker computes."""
    before = worker.cpu_times().user
    task = asyncio.ensure_future(call)
    async with asyncio.timeout(20):
        while worker.cpu_times().user < before + 0.2:
            await asyncio.wait({task}, timeout=0.02)
            assert not task.done()
    return task


async def test_cancelling_stops_a_running_session(
    start_infer: Start, infer: Infer, endless: Path, doubling: Path, worker_processes: Workers
) -> None:
    backend = await start_infer(endless=endless, doubling=doubling)
    (worker,) = worker_processes()
    task = await begin(infer(backend, "endless", **FOR_EVER), worker)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    start = time.monotonic()
    async with asyncio.timeout(5):
        assert (await infer(backend, "doubling", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert time.monotonic() - start < 1.0
    assert worker_processes() == [worker]


async def test_cancelling_stops_a_long_list_of_texts(
    start: Start, minilm: dict[str, str], context: Callable[[], CallContext], worker_processes: Workers
) -> None:
    backend = await start(minilm, task="embed", model="minilm", tokenizer="minilm-tokenizer")
    (worker,) = worker_processes()
    texts = ("one of very many texts that take a long time together " * 8,) * 20_000
    task = await begin(backend.embed(EmbedInput(texts), context()), worker)
    task.cancel()
    await asyncio.wait({task})
    async with asyncio.timeout(5):
        await backend.embed(EmbedInput(("short",)), context())
    assert worker_processes() == [worker]


async def test_a_crash_fails_one_call_and_the_next_one_works(
    start_infer: Start, infer: Infer, endless: Path, doubling: Path, worker_processes: Workers
) -> None:
    backend = await start_infer(endless=endless, doubling=doubling)
    (worker,) = worker_processes()
    task = await begin(infer(backend, "endless", **FOR_EVER), worker)
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(AttemptError, match="SIGSEGV") as crash:
        await task
    assert crash.value.kind is FailureKind.CRASHED
    async with asyncio.timeout(20):
        assert (await infer(backend, "doubling", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert worker_processes() != [worker]
    assert backend.health().state is HealthState.READY


async def failed_start(start: Start, path: Path) -> str:
    with pytest.raises(AttemptError) as refused:
        await start({"m": path}, task="infer", model="m")
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert "model 'm' " in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"GGUF" + bytes(range(256)) * 9, b"version https://git-lfs.example/spec/v1\n"]
)
async def test_a_foreign_file_is_no_model(start: Start, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert "its file is no ONNX model, or is cut short" in await failed_start(start, tmp_path / "m.onnx")


@pytest.fixture
def cut(doubling: Path) -> Path:
    """A model without its last bytes."""
    doubling.write_bytes(doubling.read_bytes()[:-20])
    return doubling


async def test_a_cut_file_is_no_model(start: Start, cut: Path) -> None:
    assert "its file is no ONNX model, or is cut short" in await failed_start(start, cut)


async def test_a_missing_file_is_told_before_any_process_starts(
    start: Start, tmp_path: Path, worker_processes: Workers
) -> None:
    assert "has no file at" in await failed_start(start, tmp_path / "none.onnx")
    assert not worker_processes()


async def test_a_model_of_the_future_wants_a_newer_engine(start: Start, build: Callable[..., Path]) -> None:
    io = [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])]
    path = build("future", [helper.make_node("Identity", ["x"], ["y"])], *io, ir_version=99)
    assert "needs a newer ONNX Runtime" in await failed_start(start, path)


@pytest.mark.parametrize("declared", [True, False])
async def test_custom_operators_are_not_loaded(start: Start, build: Callable[..., Path], declared: bool) -> None:
    """Also where the model says that it needs their domain, of which ONNX Runtime thinks otherwise."""
    io = [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])]
    domain = "my.ops" + "x" * 1000
    path = build("custom", [helper.make_node("Wizard", ["x"], ["y"], domain=domain)], *io)
    if declared:
        model = onnx.load_model_from_string(path.read_bytes())
        model.opset_import.append(helper.make_opsetid(domain, 1))
        path.write_bytes(model.SerializeToString())
    said = await failed_start(start, path)
    assert f"operators of the domain {domain[:60]!r} that ONNX Runtime does not have" in said
    assert "custom operators are not loaded" in said


async def test_operators_that_no_onnx_has_are_told_without_a_domain(start: Start, build: Callable[..., Path]) -> None:
    io = [("x", TensorProto.FLOAT, [1])], [("y", TensorProto.FLOAT, [1])]
    path = build("unknown", [helper.make_node("Wizard", ["x"], ["y"])], *io)
    said = await failed_start(start, path)
    assert "operators that this ONNX Runtime does not have" in said
    assert "domain" not in said


@pytest.mark.parametrize("dims", [[1 << 40, 1 << 20], [-1], [4]])
async def test_a_constant_of_another_size_than_its_bytes_is_refused(
    start: Start, build: Callable[..., Path], dims: list[int]
) -> None:
    path = build(
        "odd",
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, [1])],
        [("y", TensorProto.FLOAT, None)],
    )
    model = onnx.load_model_from_string(path.read_bytes())
    model.graph.initializer.append(onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"1234"))
    path.write_bytes(model.SerializeToString())
    assert "it is damaged" in await failed_start(start, path)


async def test_a_missing_package_is_told_with_the_command(
    start: Start, doubling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "path" / "onnxruntime" / "__init__.py").write_text(
        "raise ModuleNotFoundError('not here', name='onnxruntime')"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    with pytest.raises(AttemptError) as refused:
        await start({"m": doubling}, task="infer", model="m")
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert "'onnxruntime' is missing" in str(refused.value)
    assert 'pip install "edgewise[onnx]"' in str(refused.value)


async def test_a_provider_that_is_not_there_falls_back_to_the_processor_and_says_so(
    start: Start, infer: Infer, doubling: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await start({"m": doubling}, task="infer", model="m", providers=("CoreMLExecutionProvider",))
    assert (await infer(backend, "m", x=ONES))["y"].tolist() == [[2.0, 2.0, 2.0]]
    said = "CoreMLExecutionProvider cannot be used here, so that it computes on the CPU instead"
    assert backend.health() == BackendHealth(HealthState.READY, said)
    assert f"backend 'local': {said}" in caplog.text


async def test_where_it_computes_as_asked_nothing_is_said(
    start: Start, doubling: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await start({"m": doubling}, task="infer", model="m", providers=("CPUExecutionProvider",))
    assert backend.health() == BackendHealth(HealthState.READY)
    assert not caplog.text


@pytest.fixture
def swelling(build: Callable[..., Path]) -> Path:
    """Makes a tensor of ``n`` numbers."""
    return build(
        "swelling",
        [helper.make_node("ConstantOfShape", ["n"], ["much"]), helper.make_node("ReduceSum", ["much"], ["y"])],
        [("n", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT, None)],
    )


async def test_what_wants_more_memory_than_there_is_fails_one_call(start: Start, infer: Infer, swelling: Path) -> None:
    backend = await start({"m": swelling}, task="infer", model="m")
    for absurd in (1 << 40, 1 << 62, -1):
        with pytest.raises(AttemptError) as refused:
            await infer(backend, "m", n=numpy.array([absurd]))
        assert refused.value.kind in (FailureKind.INTERNAL, FailureKind.INVALID_REQUEST)
    assert (await infer(backend, "m", n=numpy.array([3])))["y"].sum() == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults in /proc")
async def test_memory_of_a_large_run_is_kept_for_the_next_up_to_a_bound(
    start: Start, infer: Infer, swelling: Path, worker_processes: Workers
) -> None:
    backend = await start({"m": swelling}, task="infer", model="m")
    (worker,) = worker_processes()

    async def run(mebibytes: int) -> int:
        """The bytes that the worker holds of its own afterwards."""
        await infer(backend, "m", n=numpy.array([mebibytes << 18]))
        return own_memory(worker.pid)

    before = await run(1)
    assert await run(400) < before + (80 << 20), "it is given back"
    await run(32)
    faults = _page_faults(worker)
    await run(32)
    assert _page_faults(worker) - faults < 1000, "the pages are those of the run before"


def _page_faults(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[7])


async def test_what_takes_more_memory_than_its_limit_is_ended_and_comes_back(
    start: Start, infer: Infer, swelling: Path, build: Callable[..., Path]
) -> None:
    backend = await start({"m": swelling}, task="infer", model="m", memory_limit=400 << 20)
    with pytest.raises(AttemptError, match=r"more than its limit of 400\.0 MiB") as ended:
        while True:
            await infer(backend, "m", n=numpy.array([1 << 28]))
    assert ended.value.kind is FailureKind.CRASHED
    async with asyncio.timeout(20):
        await infer(backend, "m", n=numpy.array([3]))


async def test_an_idle_worker_gives_its_memory_back_and_a_call_brings_it_back(
    start: Start, infer: Infer, doubling: Path, worker_processes: Workers
) -> None:
    backend = await start({"m": doubling}, task="infer", model="m", idle_unload=0.2)
    (worker,) = worker_processes()
    async with asyncio.timeout(20):
        while backend.health().state is HealthState.READY or psutil.pid_exists(worker.pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert backend.health().state is HealthState.LOADING
        assert (await infer(backend, "m", x=ONES))["y"].shape == (1, 3)


async def test_a_failed_start_is_told_by_health_and_to_whoever_calls(
    make: Callable[..., Backend], infer: Infer, tmp_path: Path
) -> None:
    backend = make({"m": tmp_path / "none.onnx"}, task="infer", model="m")
    assert backend.health().state is HealthState.LOADING
    with pytest.raises(AttemptError):
        await backend.start()
    assert backend.health().state is HealthState.DOWN
    with pytest.raises(AttemptError, match="has no file at") as refused:
        await infer(backend, "m", x=ONES)
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE


async def test_a_stopped_backend_refuses_and_starts_again(start: Start, infer: Infer, doubling: Path) -> None:
    backend = await start({"m": doubling}, task="infer", model="m")
    await backend.stop()
    with pytest.raises(AttemptError) as refused:
        await infer(backend, "m", x=ONES)
    assert refused.value.kind is FailureKind.PREEMPTED
    await backend.start()
    assert (await infer(backend, "m", x=ONES))["y"].shape == (1, 3)


async def test_stopping_while_the_files_are_read_starts_no_process(
    make: Callable[..., Backend], doubling: Path, worker_processes: Workers
) -> None:
    backend = make({"m": doubling}, task="infer", model="m")
    starting = asyncio.ensure_future(backend.start())
    await asyncio.wait({starting}, timeout=0)
    await backend.stop()
    with pytest.raises(AttemptError) as refused:
        await starting
    assert refused.value.kind is FailureKind.PREEMPTED
    assert not worker_processes()


def test_the_application_imports_no_engine() -> None:
    code = (
        "import sys; from edgewise.backends.registry import find_kind; from edgewise.backends.onnx import OnnxSettings;"
        "find_kind('onnx').build('b', OnnxSettings('infer', model='m'), {});"
        "sys.exit(bool({'numpy', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
