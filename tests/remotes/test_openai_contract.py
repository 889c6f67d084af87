"""The contract over OpenAI's API, against a server that checks keys, models and fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar

from edgewise.backends import Backend
from edgewise.backends.contract import CancellationTests, EmbeddingTests, GenerationTests, LifetimeTests, RemoteTests
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.content import GenerateInput, Message
from edgewise.core.settings import Secret

from .counting import BREAKING, CONTEXT, LASTING
from .openai_server import KEY, OpenaiServer


class TestOpenai(LifetimeTests, GenerationTests, CancellationTests, EmbeddingTests, RemoteTests):
    servers: ClassVar[list[OpenaiServer]]
    breaking = BREAKING

    def lasting(self) -> GenerateInput:
        return self.call(Message.user(LASTING), max_output_tokens=512)

    @classmethod
    def settings(cls, model: str, embed_model: str) -> OpenaiSettings:
        return OpenaiSettings(
            cls.servers[0].url,
            model,
            embed_model,
            credentials=Secret(KEY),
            context_tokens=CONTEXT,
            max_concurrency=8,
        )

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        server = OpenaiServer()
        await server.start()
        cls.servers = [*getattr(cls, "servers", []), server]
        try:
            yield OpenaiBackend("hosted", cls.settings("llm", "vectors"))
        finally:
            cls.servers.remove(server)
            await server.stop()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        for server in cls.servers:
            await server.idle()

    @classmethod
    def stranger(cls) -> Backend:
        return OpenaiBackend("stranger", cls.settings("nobody", "nothing"))

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        return cls.servers[0].filled()

    @classmethod
    async def restart(cls) -> None:
        await cls.servers[0].restart()
