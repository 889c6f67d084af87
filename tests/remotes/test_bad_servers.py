"""Servers that are not what they are said to be, for every protocol: a typed failure in time, and no vain retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewise.backends import Backend, CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import EmbedTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ByteSize

from .service import Context

CALL = GenerateInput((Message.user("plover"),))
PROTOCOLS = pytest.mark.parametrize("protocol", list(ProtocolName))
SECONDS = 3.0


def backend_at(target: str, protocol: ProtocolName, **settings: Any) -> GrpcBackend:
    oip = OipSettings(generate="vllm", embed=EmbedTensors()) if protocol is ProtocolName.OIP else None
    return GrpcBackend("b", GrpcSettings(target, protocol, "m", oip=oip, **settings))


async def failure_of(work: Callable[[CallContext], Awaitable[object]]) -> AttemptError:
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(AttemptError) as caught:
        await work(CallContext("r", Deadline(began + SECONDS)))
    assert clock() - began < SECONDS + 0.5
    assert "plover" not in repr(caught.value)
    return caught.value


async def failures(backend: Backend) -> list[AttemptError]:
    """How a generation and an embedding fail."""

    async def read(context: CallContext) -> None:
        async for _ in backend.generate(CALL, context):
            pass

    try:
        embedding = await failure_of(lambda context: backend.embed(EmbedInput(("plover",)), context))
        return [await failure_of(read), embedding]
    finally:
        await backend.stop()


class Saying(grpc.GenericRpcHandler):
    """Every method of every service says this; without it, the server has no method at all."""

    def __init__(self, message: bytes | None) -> None:
        self._message = message

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if self._message is None or details.method.endswith("/ServerMetadata"):
            return None
        return grpc.stream_stream_rpc_method_handler(self._say)

    async def _say(self, requests: AsyncIterator[bytes], context: Context) -> None:
        assert self._message is not None
        await context.write(self._message)


@asynccontextmanager
async def saying(message: bytes | None) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([Saying(message)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield target
    finally:
        await server.stop(0)


@PROTOCOLS
async def test_garbage_in_a_message_is_another_protocol(protocol: ProtocolName) -> None:
    async with saying(b"\xff\xff\xff plover") as target:
        for failed in await failures(backend_at(target, protocol)):
            assert failed.kind is FailureKind.PROTOCOL
            assert "`protocol`" in failed.sentence
            assert not failed.disposition.retry_here


@PROTOCOLS
async def test_a_message_without_its_fields_is_no_answer(protocol: ProtocolName) -> None:
    async with saying(b"") as target:
        cut, empty = await failures(backend_at(target, protocol))
        assert cut.kind is FailureKind.TRUNCATED
        assert empty.kind is FailureKind.PROTOCOL
        assert not cut.disposition.retry_here


@PROTOCOLS
async def test_another_service_on_the_port_is_named(protocol: ProtocolName) -> None:
    async with saying(None) as target:
        for failed in await failures(backend_at(target, protocol)):
            assert failed.kind is FailureKind.UNSUPPORTED
            assert "`protocol`" in failed.sentence
            assert not failed.disposition.retry_here


@PROTOCOLS
async def test_a_message_that_is_too_large_is_not_taken(protocol: ProtocolName) -> None:
    async with saying(b"\x0a" * 10_000) as target:
        for failed in await failures(backend_at(target, protocol, max_message=ByteSize(4096))):
            assert failed.kind is FailureKind.PROTOCOL
            assert "larger" in failed.sentence
            assert not failed.disposition.retry_here


@asynccontextmanager
async def http(answer: bytes) -> AsyncIterator[str]:
    """A web server that answers everything by this, whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@PROTOCOLS
async def test_a_web_server_on_the_port_is_named(protocol: ProtocolName) -> None:
    async with http(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nplover") as target:
        for failed in await failures(backend_at(target, protocol)):
            assert failed.kind is FailureKind.PROTOCOL
            assert "`target`" in failed.sentence
            assert not failed.disposition.retry_here


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nplover",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/plover\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nplover",
        b"SSH-2.0-plover\r\n\r\n",
    ],
    ids=["a page", "a captive portal", "another path", "no web server"],
)
async def test_what_does_not_speak_openais_api_is_named(answer: bytes) -> None:
    async with http(answer) as target:
        settings = OpenaiSettings(f"http://{target}/v1", "m", "m")
        generation, embedding = await failures(OpenaiBackend("b", settings))
        assert embedding.kind is FailureKind.PROTOCOL
        assert generation.kind in {FailureKind.PROTOCOL, FailureKind.TRUNCATED}  # a page may be a stream without events
        assert not generation.disposition.retry_here
        assert not embedding.disposition.retry_here
