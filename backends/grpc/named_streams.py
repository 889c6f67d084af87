"""Streams that their server keeps for us by their names: released where nobody wants them, and found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TypeVar

from ...core.failure import AttemptError, FailureKind
from .call_metadata import CallMetadata
from .connection import Line
from .each_address import EachAddress
from .status import CALL_ERRORS
from .wire_protocol import WireProtocol

E = TypeVar("E")

_RELEASE_WAIT = 0.5
"""Seconds for which a server is given to hear that a stream is not wanted."""


class NamedStreams:
    """The streams under way that have a name, each with the line that it came by.

    ``each``: where calls are spread over several addresses, so that a release goes to all. Who does not know the
    stream does nothing.
    """

    def __init__(self, protocol: WireProtocol, metadata: CallMetadata, each: EachAddress | None) -> None:
        self._protocol = protocol
        self._metadata = metadata
        self._each = each
        self._lines: dict[str, Line | None] = {}
        self._releasing: set[asyncio.Task[None]] = set()

    def begun(self, stream: str, line: Line | None) -> None:
        """A stream of this name begins, or goes on."""
        self._lines[stream] = line

    def ended(self, stream: str) -> None:
        """It has said all, or its connection was lost: it needs no release."""
        self._lines.pop(stream, None)

    def left(self, stream: str) -> None:
        """Nobody reads it any more. What has ended is not known here, nor what `release_all` has released."""
        if stream in self._lines:
            self._release(stream, self._lines.pop(stream))

    async def release_all(self) -> None:
        """Release every one, and wait a moment for their servers to hear it."""
        while self._lines:
            self._release(*self._lines.popitem())
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=_RELEASE_WAIT)

    def _release(self, stream: str, line: Line | None) -> None:
        """Tell the server that nobody wants this stream. Where that does not arrive, it stops a little later."""
        heard: Awaitable[None]
        if self._each is not None:
            heard = self._tell_all(self._each, stream)
        elif line is not None and not line.closed:
            heard = self._tell(line, stream)
        else:
            return
        releasing = asyncio.ensure_future(heard)
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _tell_all(self, each: EachAddress, stream: str) -> None:
        try:
            told = [self._tell(connection.take(), stream) for connection in await each.connections()]
        except AttemptError:  # a file that TLS needs is gone
            return
        await asyncio.gather(*told)

    def _tell(self, line: Line, stream: str) -> Awaitable[None]:
        """Begin to tell at once, while the line is open."""
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

        return end()


async def first_to_speak(streams: Sequence[AsyncGenerator[E, None]]) -> tuple[E, AsyncGenerator[E, None]]:
    """The stream that says something first, and what it says; the others are closed. There must be one at least.

    Raises the `AttemptError` of one that could not be reached, because it may be the one, else any one's.
    """
    waiting = {asyncio.ensure_future(anext(stream)): stream for stream in streams}
    failures: list[AttemptError] = []
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                stream = waiting.pop(task)
                try:
                    return task.result(), stream
                except AttemptError as error:
                    failures.append(error)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in waiting.values():
            await stream.aclose()
    raise next((error for error in failures if error.kind is FailureKind.UNREACHABLE), failures[0])
