"""The whole contract against MLServer, Triton and KServe themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy

from edgewise.backends import Backend
from edgewise.backends.contract import (
    CancellationTests,
    EmbeddingTests,
    GenerationTests,
    InferenceTests,
)
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import EmbedTensors, GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.tensors import to_tensor
from edgewise.core.content import GenerateInput, InferInput, Message
from edgewise.core.request import Task

from ..remotes.counting import BREAKING, LASTING
from .one_server import OneServer
from .servers import STARTS, Running

ARRAY = to_tensor(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))
OWN = GenerateTensors(max_output_tokens="max_tokens", finish_reason="finish_reason")


class RealContract(OneServer):
    __test__ = False

    oip: ClassVar[OipSettings]
    model: ClassVar[str] = "llm"
    tasks: ClassVar[tuple[Task, ...]] = tuple(Task)

    @classmethod
    def begin(cls, folder: Path) -> Running:
        return STARTS[cls.server](folder)

    @classmethod
    def settings(cls, model: str) -> GrpcSettings:
        target = cls.running.target
        return GrpcSettings(target, ProtocolName.OIP, model, tasks=cls.tasks, max_concurrency=4, oip=cls.oip)

    @classmethod
    def make(cls) -> Backend:
        return GrpcBackend("real", cls.settings(cls.model))

    @classmethod
    def stranger(cls) -> Backend:
        return GrpcBackend("stranger", cls.settings("nobody"))


class RealGeneration(RealContract, GenerationTests, CancellationTests):
    __test__ = False
    breaking = BREAKING

    def lasting(self) -> GenerateInput:
        return self.call(Message.user(LASTING), max_output_tokens=512)

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        return cls._filled()

    @classmethod
    @asynccontextmanager
    async def _filled(cls) -> AsyncIterator[None]:
        """As many calls as its model, and its queue where it has one, hold."""
        backend = GrpcBackend("others", replace(cls.settings(cls.model), max_concurrency=64))
        suite, begun = cls(), list[asyncio.Future[object]]()
        try:
            while not any(each.done() and each.exception() for each in begun):
                # One after the other: what comes at once may be refused before the model has taken its share.
                stream = backend.generate(suite.lasting(), suite.context())
                begun.append(asyncio.ensure_future(anext(stream)))
                await asyncio.wait(begun[-1:], timeout=0.3)
            yield
        finally:
            await backend.stop()
            await asyncio.gather(*begun, return_exceptions=True)


class TestMlserver(RealGeneration, EmbeddingTests, InferenceTests):
    __test__ = True
    server = "mlserver"
    oip = OipSettings(generate=OWN, chat="chatml", embed=EmbedTensors())
    tensors = InferInput("llm", {"x": ARRAY})
    honours_stop = False


class TestKserve(RealGeneration, EmbeddingTests, InferenceTests):
    __test__ = True
    server = "kserve"
    oip = OipSettings(generate=OWN, chat="chatml", embed=EmbedTensors())
    tensors = InferInput("llm", {"x": ARRAY})
    honours_stop = False
    streams = False


class TestTriton(RealGeneration, InferenceTests):
    __test__ = True
    server = "triton"
    oip = OipSettings(generate="discover", chat="chatml")
    tensors = InferInput("float32", {"x": ARRAY})


class TestTritonEmbedding(RealContract, EmbeddingTests):
    __test__ = True
    server = "triton"
    oip = OipSettings(embed="discover")
    model = "embed"
    tasks = (Task.EMBED,)
