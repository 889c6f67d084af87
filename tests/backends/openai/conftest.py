"""A small HTTP server that answers as a test says, and backends that talk to it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgewise.backends import CallContext
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.answer import GenerateEvent
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError

SECRET_WORDS = "the patient's word is plover"
CALL = GenerateInput((Message.user(SECRET_WORDS),))


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Any
    connection: asyncio.StreamReader


Talk = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> Talk:
    """A whole answer."""

    async def talk(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)
        await writer.drain()

    return talk


async def begin(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await writer.drain()


async def send(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    await writer.drain()


def chunk(text: str | None = None, reason: str | None = None, **more: object) -> bytes:
    choice: dict[str, object] = {
        "index": 0,
        "delta": {} if text is None else {"content": text},
        "finish_reason": reason,
    }
    return b"data: " + json.dumps({"model": "m-1", "choices": [choice], **more}).encode() + b"\n\n"


USAGE = b'data: {"model": "m-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"
HELLO = (chunk("hello "), chunk("there"), chunk(reason="length"), USAGE, DONE)


def stream(*pieces: bytes) -> Talk:
    """A stream of pieces, ended well."""

    async def talk(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for piece in pieces:
            await send(writer, piece)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return talk


@dataclass
class Servers:
    """Starts servers, and stops them at the test's end."""

    requests: list[Request] = field(default_factory=list)
    running: list[asyncio.Server] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, talk: Talk, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    request = await _request(reader)
                    self.requests.append(request)
                    await talk(request, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(serve(reader, writer))
            self.tasks.add(task)

        server = await asyncio.start_server(accept, host, 0, ssl=context)
        self.running.append(server)
        scheme = "http" if context is None else "https"
        return f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        for server in self.running:
            server.close()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(first.split(" ")[1], headers, json.loads(body), reader)


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    servers = Servers()
    yield servers
    await servers.stop()


MakeBackend = Callable[..., OpenaiBackend]


@pytest.fixture
async def make_backend() -> AsyncIterator[MakeBackend]:
    made: list[OpenaiBackend] = []

    def make(url: str, **settings: Any) -> OpenaiBackend:
        made.append(OpenaiBackend("cloud", replace(OpenaiSettings(url, "m", "e"), **settings)))
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()


def within(seconds: float) -> CallContext:
    return CallContext("request-1", Deadline.after(asyncio.get_running_loop().time(), seconds))


async def collect(events: AsyncGenerator[GenerateEvent, None]) -> list[GenerateEvent]:
    return [event async for event in events]


async def failure_of(backend: OpenaiBackend, seconds: float = 5.0, call: GenerateInput = CALL) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(call, within(seconds)))
    assert "plover" not in repr(caught.value)
    assert caught.value.__context__ is caught.value.__cause__ is None
    return caught.value
