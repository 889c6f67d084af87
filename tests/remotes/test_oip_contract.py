"""The contract over the Open Inference Protocol, in each dialect, against servers that check what they are sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import ClassVar

import numpy

from edgewise.backends import Backend
from edgewise.backends.contract import (
    CancellationTests,
    EmbeddingTests,
    GenerationTests,
    InferenceTests,
    LifetimeTests,
    RemoteTests,
)
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import EmbedTensors, GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.tensors import to_tensor
from edgewise.core.content import GenerateInput, InferInput, Message

from .counting import BREAKING, CONTEXT, LASTING
from .oip_server import DYNAMO, KSERVE, MLSERVER, OLDER_TENSORRT_LLM, TENSORRT_LLM, TRITON_VLLM, Dialect, OipServer

TENSORS = InferInput("llm", {"x": to_tensor(numpy.arange(6, dtype=numpy.float32).reshape(3, 2))})
OWN = GenerateTensors(max_output_tokens="max_tokens")


class OipContract(LifetimeTests, GenerationTests, CancellationTests, EmbeddingTests, InferenceTests, RemoteTests):
    __test__ = False

    dialect: ClassVar[Dialect]
    oip: ClassVar[OipSettings]
    tensors = TENSORS
    breaking = BREAKING
    continues: ClassVar[bool] = True
    servers: ClassVar[list[OipServer]]

    def lasting(self) -> GenerateInput:
        return self.call(Message.user(LASTING), max_output_tokens=512)

    @classmethod
    def settings(cls, model: str = "llm") -> GrpcSettings:
        return GrpcSettings(
            cls.servers[0].target,
            ProtocolName.OIP,
            model,
            context_tokens=CONTEXT,
            max_concurrency=8,
            continues=cls.continues,
            oip=cls.oip,
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        server = OipServer(cls.dialect)
        await server.start()
        cls.servers = [*getattr(cls, "servers", []), server]
        try:
            yield GrpcBackend("oip", cls.settings())
        finally:
            cls.servers.remove(server)
            await server.stop()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        for server in cls.servers:
            await server.idle()

    @classmethod
    def stranger(cls) -> Backend:
        return GrpcBackend("stranger", cls.settings("nobody"))

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        return cls.servers[0].filled()

    @classmethod
    async def restart(cls) -> None:
        await cls.servers[0].restart()


class TestTritonVllm(OipContract):
    __test__ = True
    dialect = TRITON_VLLM
    oip = OipSettings(generate="vllm", chat="chatml", embed=EmbedTensors())


class TestTensorrtLlm(OipContract):
    __test__ = True
    dialect = TENSORRT_LLM
    oip = OipSettings(generate="tensorrt_llm", chat="chatml", embed=EmbedTensors())


class TestOlderTensorrtLlm(OipContract):
    """Its names and types are others: the model is asked for them."""

    __test__ = True
    dialect = OLDER_TENSORRT_LLM
    oip = OipSettings(generate="discover", chat="chatml", embed=EmbedTensors())


class TestDynamo(OipContract):
    __test__ = True
    dialect = DYNAMO
    oip = OipSettings(generate="dynamo", chat="chatml", embed=EmbedTensors())
    # It reads nothing but the prompt.
    honours_length = honours_stop = False
    continues = False


class TestMlserver(OipContract):
    __test__ = True
    dialect = MLSERVER
    oip = OipSettings(generate=OWN, chat="chatml", embed=EmbedTensors())
    honours_stop = False


class TestKserve(OipContract):
    __test__ = True
    dialect = KSERVE
    oip = OipSettings(generate=replace(OWN, finish_reason="finish_reason"), chat="chatml", embed=EmbedTensors())
    honours_stop = False
    streams = False
