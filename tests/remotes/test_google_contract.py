"""The contract over Gemini and Vertex, against a server that checks keys, routing and fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar

from edgewise.backends import Backend
from edgewise.backends.contract import (
    CancellationTests,
    CountingTests,
    EmbeddingTests,
    GenerationTests,
    LifetimeTests,
    RemoteTests,
)
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.content import GenerateInput, Message
from edgewise.core.request import Task
from edgewise.core.settings import Secret

from .counting import BREAKING, CONTEXT, LASTING
from .google_server import EMBED_MODELS, KEY, MODELS, GoogleServer


class GoogleContract(LifetimeTests, CancellationTests, RemoteTests):
    __test__ = False

    protocol: ClassVar[ProtocolName]
    models: ClassVar[dict[ProtocolName, str]] = MODELS
    tasks: ClassVar[tuple[Task, ...]] = (Task.GENERATE, Task.COUNT_TOKENS)
    servers: ClassVar[list[GoogleServer]]
    breaking = BREAKING

    def lasting(self) -> GenerateInput:
        return self.call(Message.user(LASTING), max_output_tokens=512)

    @classmethod
    def settings(cls, model: str) -> GrpcSettings:
        return GrpcSettings(
            cls.servers[0].target,
            cls.protocol,
            model,
            credentials=Secret(KEY),
            tasks=cls.tasks,
            context_tokens=CONTEXT,
            max_concurrency=8,
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        server = GoogleServer(cls.protocol)
        await server.start()
        cls.servers = [*getattr(cls, "servers", []), server]
        try:
            yield GrpcBackend("google", cls.settings(cls.models[cls.protocol]))
        finally:
            cls.servers.remove(server)
            await server.stop()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        for server in cls.servers:
            await server.idle()

    @classmethod
    def stranger(cls) -> Backend:
        return GrpcBackend("stranger", cls.settings(cls.models[cls.protocol] + "-none"))

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        return cls.servers[0].filled()

    @classmethod
    async def restart(cls) -> None:
        await cls.servers[0].restart()


class TestGemini(GoogleContract, GenerationTests, EmbeddingTests, CountingTests):
    __test__ = True
    protocol = ProtocolName.GEMINI
    tasks = (Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS)


class TestVertex(GoogleContract, GenerationTests, CountingTests):
    __test__ = True
    protocol = ProtocolName.VERTEX


class TestVertexEmbedding(LifetimeTests, EmbeddingTests):
    """Its models for texts and for vectors are different ones, and so are the backends."""

    servers: ClassVar[list[GoogleServer]]

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        server = GoogleServer(ProtocolName.VERTEX)
        await server.start()
        settings = GrpcSettings(
            server.target,
            ProtocolName.VERTEX,
            EMBED_MODELS[ProtocolName.VERTEX],
            credentials=Secret(KEY),
            tasks=(Task.EMBED,),
            max_concurrency=8,
        )
        try:
            yield GrpcBackend("google", settings)
        finally:
            await server.stop()
