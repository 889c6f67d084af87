"""A gRPC server written frame by frame, so that every frame can be the wrong one."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does with a connection."""


class Session:
    """One HTTP/2 connection, seen from the server. What is sent leaves at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.frames = H2Connection(H2Configuration(client_side=False))

    def begin(self, settings: dict[SettingCodes, int] | None = None) -> None:
        """Send SETTINGS, as the first frame."""
        self.frames.local_settings = Settings(client=False, initial_values=settings)
        self.frames.initiate_connection()
        self.send()

    async def requests(self) -> AsyncIterator[tuple[int, str]]:
        """Each whole request's stream and path, until the client closes."""
        paths: dict[int, str] = {}
        while data := await self._reader.read(65536):
            try:
                events = self.frames.receive_data(data)
            except ProtocolError:
                return
            for event in events:
                if isinstance(event, RequestReceived) and event.stream_id and event.headers:
                    paths[event.stream_id] = dict(event.headers)[b":path"].decode()
                elif isinstance(event, DataReceived) and event.stream_id:
                    self.frames.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                elif isinstance(event, StreamEnded) and event.stream_id:
                    self.send()
                    yield event.stream_id, paths[event.stream_id]
            self.send()

    def headers(self, stream: int, *more: tuple[str, str]) -> None:
        """Send the first headers of an answer."""
        self.frames.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc"), *more])
        self.send()

    def message(self, stream: int, payload: bytes) -> None:
        """Send one gRPC message."""
        self.frames.send_data(stream, struct.pack(">BI", 0, len(payload)) + payload)
        self.send()

    def part_of_a_message(self, stream: int, payload: bytes) -> None:
        """Send a message's length and half of it."""
        self.frames.send_data(stream, struct.pack(">BI", 0, len(payload)) + payload[: len(payload) // 2])
        self.send()

    def trailers(self, stream: int, status: int, text: str = "") -> None:
        """End an answer by a gRPC status."""
        self.frames.send_headers(stream, [("grpc-status", str(status)), ("grpc-message", text)], end_stream=True)
        self.send()

    def status_alone(self, stream: int, status: int, *more: tuple[str, str]) -> None:
        """Answer by a status and nothing else."""
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status)), *more]
        self.frames.send_headers(stream, fields, end_stream=True)
        self.send()

    def reset(self, stream: int, code: int) -> None:
        """Send RST_STREAM."""
        self.frames.reset_stream(stream, code)
        self.send()

    def goaway(self, last_stream: int) -> None:
        """Send GOAWAY without an error; streams above ``last_stream`` were not looked at."""
        frame = struct.pack(">I", 8)[1:] + b"\x07\x00" + struct.pack(">III", 0, last_stream, 0)
        self._writer.write(frame)  # by hand: h2 says no more after a GOAWAY

    def send(self) -> None:
        """Send what the frames came to."""
        self._writer.write(self.frames.data_to_send())


@asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A server that does as ``talk`` says with each connection; the target to reach it by."""
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)
