"""Streams that their server keeps for us by their names, and that are released there when nobody wants them."""

from __future__ import annotations

import asyncio

import grpc.aio

from .call_metadata import CallMetadata
from .connection import Line
from .status import CALL_ERRORS
from .wire_protocol import WireProtocol

_RELEASE_WAIT = 0.5
"""Seconds for which a server is given to hear that a stream is not wanted."""


class NamedStreams:
    """The streams under way that have a name, each with the line that it came by."""

    def __init__(self, protocol: WireProtocol, metadata: CallMetadata) -> None:
        self._protocol = protocol
        self._metadata = metadata
        self._lines: dict[str, Line] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    def begun(self, stream: str, line: Line) -> None:
        """A stream of this name begins, or goes on."""
        self._lines[stream] = line

    def finished(self, stream: str) -> None:
        """It has said all."""
        self._lines.pop(stream, None)

    def left(self, stream: str, call: grpc.aio.Call | None) -> None:
        """Nobody reads it any more. What has ended by itself needs no release, nor what `release_all` has released."""
        line = self._lines.pop(stream, None)
        if line is not None and call is not None and not call.done():
            call.cancel()
            self._release(line, stream)

    async def release_all(self) -> None:
        """Release every one, and wait a moment for their servers to hear it."""
        while self._lines:
            stream, line = self._lines.popitem()
            self._release(line, stream)
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=_RELEASE_WAIT)

    def _release(self, line: Line, stream: str) -> None:
        """Tell the server that nobody wants this stream. Where that does not arrive, it stops a little later."""
        if line.closed:
            return
        path = self._protocol.release_path
        request = self._protocol.encode_release(stream)
        call = line.unary(path)(request, timeout=_RELEASE_WAIT, metadata=self._metadata.of(path))
        line.calls.add(call)

        async def end() -> None:
            try:
                await call
            except CALL_ERRORS:
                pass
            finally:
                call.cancel()  # does nothing to one that has ended
                await line.connection.ended(line, call)

        releasing = asyncio.get_running_loop().create_task(end())
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)
