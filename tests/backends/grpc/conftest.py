"""Servers of the real stack that answer as a test says, and backends that talk to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.core.answer import GenerateEvent
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.protos.v1 import model_service_pb2 as wire

SECRET_WORDS = "the patient's word is plover"
"""Content that no exception, log or record may hold."""

Handler = Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[Any]]


def delta(text: str) -> bytes:
    return wire.GenerateResponse(delta=wire.Delta(text=text, tokens=1)).SerializeToString()


def finish() -> bytes:
    message = wire.Finish(reason=wire.FINISH_REASON_STOP, usage=wire.Usage(prompt_tokens=3, output_tokens=2))
    return wire.GenerateResponse(finish=message).SerializeToString()


def vectors() -> bytes:
    tensor = wire.Tensor(dtype="float32", shape=[1, 2], data=bytes(8))
    return wire.EmbedResponse(vectors=tensor).SerializeToString()


async def two_words(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    for message in (delta("hello "), delta("there"), finish()):
        await context.write(message)


@dataclass
class Servers:
    """Starts servers, and stops them at the test's end."""

    running: list[grpc.aio.Server] = field(default_factory=list)

    async def start(
        self,
        generate: Handler = two_words,
        embed: Handler | None = None,
        listen: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
    ) -> str:
        """Serve the handlers as `edgewise.v1.ModelService`; the target to reach them by."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Generate": grpc.unary_stream_rpc_method_handler(generate)
        }
        if embed is not None:
            handlers["Embed"] = grpc.unary_unary_rpc_method_handler(embed)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("edgewise.v1.ModelService", handlers)])
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
        await server.start()
        self.running.append(server)
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        for server in self.running:
            await server.stop(0)
        self.running.clear()


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    servers = Servers()
    yield servers
    await servers.stop()


MakeBackend = Callable[..., GrpcBackend]


@pytest.fixture
async def make_backend() -> AsyncIterator[MakeBackend]:
    made: list[GrpcBackend] = []

    def make(target: str, **settings: Any) -> GrpcBackend:
        backend = GrpcBackend("cloud", replace(GrpcSettings(target=target), **settings))
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.stop()


def within(seconds: float) -> CallContext:
    """A call's context with so long to live."""
    return CallContext("request-1", Deadline.after(asyncio.get_running_loop().time(), seconds))


CALL = GenerateInput((Message.user(SECRET_WORDS),))


async def collect(events: AsyncGenerator[GenerateEvent, None]) -> list[GenerateEvent]:
    return [event async for event in events]
