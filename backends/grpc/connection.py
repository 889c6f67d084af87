"""The way to one service: opened on first use, opened anew after it broke.

The library waits longer and longer before it tries a broken connection again, and cannot be told that now is a
good time. A new channel tries at once. So a line that broke serves the calls it has, and the next call gets a new
one.
"""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from ...core.failure import FailureKind
from ..file_version import WatchedFiles
from .channel import credential_files, open_channel
from .fork import closed, opened, refuse_after_fork
from .quiet_loop import quieten
from .settings import GrpcSettings

_MOST_PATIENT = 8
"""How many times the configured connect timeout a connection that keeps failing may take: links differ."""


class Line:
    """One channel and the calls on it."""

    __slots__ = ("_streams", "_unaries", "_watching", "calls", "channel", "closed", "connection", "place", "retired")

    def __init__(self, connection: Connection, channel: grpc.aio.Channel) -> None:
        self.connection = connection
        self.channel = channel
        opened(channel)
        self.calls: set[grpc.aio.Call] = set()
        self.retired = False
        self.closed = False
        self.place: str | None = None
        """Where the service says it is; ``None`` before this connection's handshake."""
        self._watching: asyncio.Task[None] | None = None
        self._streams: dict[str, grpc.aio.UnaryStreamMultiCallable[bytes, bytes]] = {}
        self._unaries: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def stream(self, path: str) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
        """The method at ``path`` that answers by a stream. Messages stay bytes, so that the library logs none."""
        method = self._streams.get(path)
        if method is None:
            method = self._streams[path] = self.channel.unary_stream(path)
        return method

    def unary(self, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        """The method at ``path`` that answers once."""
        method = self._unaries.get(path)
        if method is None:
            method = self._unaries[path] = self.channel.unary_unary(path)
        return method

    def forget_place_when_it_reconnects(self) -> None:
        """A channel connects anew by itself, perhaps to another: that one is asked again."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def connected(self) -> bool:
        """Whether a connection stands now. The loop may hear later of one that broke."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def _watch(self) -> None:
        if self.connected:
            # When this goes on, another one may stand already.
            await self.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        self.place = self._watching = None

    async def close(self) -> None:
        """End the channel and whatever still runs on it."""
        self.closed = True
        closed(self.channel)
        if self._watching is not None:
            self._watching.cancel()
        for call in self.calls:  # older releases of the library leave some running
            call.cancel()
        await self.channel.close()


class Connection:
    """Hands out the line that the next call takes. Belongs to the event loop that first uses it."""

    def __init__(self, settings: GrpcSettings) -> None:
        self.settings = settings
        self._current: Line | None = None
        self._lines: set[Line] = set()
        self._broken_in_a_row = 0
        self.files = WatchedFiles(credential_files(settings))

    def take(self) -> Line:
        """The line for the next call; raises `AttemptError` where the TLS files cannot be read, or after a fork.

        Whoever starts a call on it adds that to the line's `calls`, and says when it has `ended`.
        """
        line = self._current
        if line is not None and self.files.seen_replaced():
            line.retired = True  # what was replaced holds for the next connection; what runs ends on the old one
        if line is None or line.retired:
            refuse_after_fork()
            quieten()
            self.files.read()
            patience = min(2**self._broken_in_a_row, _MOST_PATIENT)
            line = Line(self, open_channel(self.settings, self.settings.connect_timeout * patience))
            self._current = line
            self._lines.add(line)
        return line

    async def renew(self) -> None:
        """The next call gets a new line, which does not wait for an old one's failures; what runs ends where it is."""
        self._broken_in_a_row = 0
        line, self._current = self._current, None
        if line is not None:
            line.retired = True
            if not line.calls and not line.closed:
                self._lines.discard(line)
                await line.close()

    def succeeded(self) -> None:
        """A call was answered: the way is sound."""
        self._broken_in_a_row = 0

    def failed(self, line: Line, kind: FailureKind) -> None:
        """A call on ``line`` failed: judge whether the next one needs a new line."""
        if line.retired or line.closed:
            return
        if kind in {FailureKind.UNREACHABLE, FailureKind.PROTOCOL}:
            if self.settings.balances and line.connected:
                return  # another address serves, and the channel knows which one failed
            line.retired = True
            self._broken_in_a_row = min(self._broken_in_a_row + 1, _MOST_PATIENT)
        elif kind is FailureKind.TIMED_OUT:
            # Connected and silent may be a path that died. One that is still connecting is left to get there.
            line.retired = line.connected

    async def ended(self, line: Line, call: grpc.aio.Call | None) -> None:
        """A call has ended, or did not come to be. Retired lines without calls are closed."""
        if call is not None:
            line.calls.discard(call)
        if line is self._current and not line.retired and len(self._lines) == 1:
            return
        for idle in [each for each in self._lines if each.retired and not each.calls]:
            self._lines.discard(idle)
            await idle.close()

    async def close(self) -> None:
        """End every line and the calls on them."""
        lines, self._lines, self._current = self._lines, set(), None
        for line in lines:
            await line.close()
