"""A relay before a server on loopback, which keeps every byte that went to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class RecordedWire:
    """Listens on a ``port`` of its own. ``address`` tells at each connection where the server is."""

    def __init__(self, address: Callable[[], str]) -> None:
        self._address = address
        self._relay: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.sent = bytearray()
        self.port = 0

    async def open(self) -> None:
        """Listen."""
        self._relay = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._relay.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and close what is open."""
        assert self._relay is not None
        self._relay.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._address().rsplit(":", 1)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        for source, sink, record in ((reader, far_writer, True), (far_reader, writer, False)):
            self._pipes.add(asyncio.create_task(self._pipe(source, sink, record)))

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bool) -> None:
        try:
            while data := await source.read(65536):
                if record:
                    self.sent += data
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
