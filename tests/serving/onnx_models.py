"""A real ONNX model, served by a real worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from onnx import TensorProto, helper

from edgewise.backends import Backend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import OnnxSettings
from edgewise.backends.onnx.backend import OnnxBackend
from edgewise.backends.onnx.settings import OnnxTask
from edgewise.core.settings import ModelName


def _triage() -> bytes:
    """Doubles numbers, makes others of another type, and gives words back."""
    describe = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["features", "features"], ["doubled"]),
            helper.make_node("Cast", ["ids"], ["as_double"], to=TensorProto.DOUBLE),
            helper.make_node("Identity", ["words"], ["same"]),
        ],
        "triage",
        [
            describe("features", TensorProto.FLOAT, ["rows", 3]),
            describe("ids", TensorProto.INT64, [2]),
            describe("words", TensorProto.STRING, ["count"]),
        ],
        [
            describe("doubled", TensorProto.FLOAT, ["rows", 3]),
            describe("as_double", TensorProto.DOUBLE, [2]),
            describe("same", TensorProto.STRING, ["count"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


@asynccontextmanager
async def triage(folder: Path) -> AsyncIterator[Backend]:
    """The backend `sorter`, with that model as `triage`."""
    (folder / "triage.onnx").write_bytes(_triage())
    model = ModelFile("triage", ModelSettings("file:triage.onnx"), folder)
    settings = OnnxSettings(OnnxTask.INFER, models={"triage": ModelName("triage")}, threads=1)
    backend = OnnxBackend("sorter", settings, {"triage": model})
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()
