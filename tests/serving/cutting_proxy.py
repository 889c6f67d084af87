"""A TCP proxy that cuts a connection at an exact place in what the server says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_HEADER = 9
_DATA = 0


@dataclass
class Cut:
    """Cuts after so many whole DATA frames of a stream's answer, and ``into`` (0 to 1) of the next one."""

    after: int
    into: float = 0.0


class CuttingProxy:
    """Forwards both ways. The first connections are cut where ``cuts`` say, one each; later ones live."""

    def __init__(self, target: str, *cuts: Cut) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._cuts = list(cuts)
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.address = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CuttingProxy]:
        """Listens within the block."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence_all(self) -> None:
        """From now on nothing passes on the connections there are, and nobody is told."""
        self._silent |= self._writers

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut = self._cuts.pop(0) if self._cuts else None
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, upstream_writer}
        try:
            up = asyncio.create_task(self._pump(reader, upstream_writer))
            down = asyncio.create_task(self._pump_frames(upstream_reader, writer, cut))
            _, pending = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            for each in (writer, upstream_writer):
                each.transport.abort()
                self._writers.discard(each)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._pass_on(writer, data)

    async def _pump_frames(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut | None) -> None:
        """Frame by frame, to the cut."""
        seen = 0
        while True:
            header = await reader.readexactly(_HEADER)
            body = await reader.readexactly(int.from_bytes(header[:3], "big"))
            frame = header + body
            if cut is not None and header[3] == _DATA and body:
                if seen == cut.after:
                    await self._pass_on(writer, frame[: int(len(frame) * cut.into)])
                    return
                seen += 1
            await self._pass_on(writer, frame)

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer not in self._silent:
            writer.write(data)
            await writer.drain()
