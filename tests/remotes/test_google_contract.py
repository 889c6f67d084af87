"""The contract over Gemini and Vertex, against a server that checks keys, routing and fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from edgewise.backends import Backend
from edgewise.backends.contract import CountingTests, EmbeddingTests, GenerationTests, LifetimeTests
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.request import Task
from edgewise.core.settings import Secret

from .contract import ServedContract
from .counting import CONTEXT
from .google_server import EMBED_MODELS, KEY, MODELS, GoogleServer


class GoogleContract(ServedContract[GoogleServer]):
    __test__ = False

    protocol: ClassVar[ProtocolName]
    tasks: ClassVar[tuple[Task, ...]] = (Task.GENERATE, Task.COUNT_TOKENS)

    @classmethod
    def server(cls) -> GoogleServer:
        return GoogleServer(cls.protocol)

    @classmethod
    def client(cls, server: GoogleServer, *, knows: bool) -> Backend:
        settings = GrpcSettings(
            server.target,
            cls.protocol,
            MODELS[cls.protocol] + ("" if knows else "-none"),
            credentials=Secret(KEY),
            tasks=cls.tasks,
            context_tokens=CONTEXT,
            max_concurrency=8,
        )
        return GrpcBackend("google", settings)


class TestGemini(GoogleContract, GenerationTests, EmbeddingTests, CountingTests):
    __test__ = True
    protocol = ProtocolName.GEMINI
    tasks = (Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS)


class TestVertex(GoogleContract, GenerationTests, CountingTests):
    __test__ = True
    protocol = ProtocolName.VERTEX


class TestVertexEmbedding(LifetimeTests, EmbeddingTests):
    """Its models for texts and for vectors are different ones, and so are the backends."""

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
