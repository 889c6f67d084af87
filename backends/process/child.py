"""One worker process in the application's eyes, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count

from ...core.failure import AttemptError, FailureKind
from .control_group import Endings
from .death import WorkerDied, death_of
from .engine import Parcel, Progress
from .environment import worker_environment
from .frames import Frame, FrameError, FrameReader, JsonObject, encode
from .memory import own_memory, processor_time
from .replies import WINDOW, Replies
from .scratch import ScratchFolder
from .shared import LEAST, SharedArea, new_area

_MAIN = "edgewise.backends.process.main"
_PINGS_UNTIL_HUNG = 5
_LOADING_PATIENCE = 6  # Loading a native library from a slow disk holds the interpreter lock.
_QUESTION_PATIENCE = 6  # A question cannot be cancelled, and takes no turn from anybody.
_EXIT_GRACE = 1.0
_STOP_STEP = 0.3


class Child(asyncio.Protocol):
    """A worker process and the socket to it.

    When it has ended, ``on_death`` is called, then all its calls fail, then ``died`` is done; each with the reason.

    It is pinged all its life; when it answers nothing for ``hang_after`` seconds, or works so long on a call that was
    cancelled, or six times so long on a question, it is killed. At each ping its memory is compared with
    ``memory_limit``, in bytes. Time is counted in pings and not by a clock, so that a machine that slept, or an
    application that was stopped, does not blame it.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        name: str,
        *,
        hang_after: float,
        memory_limit: int | None,
        scratch: ScratchFolder | None,
        on_death: Callable[[WorkerDied], None],
    ) -> None:
        self._process = process
        self._scratch = scratch
        self._on_death = on_death
        self._name = name
        self._hang_after = hang_after
        self._memory_limit = memory_limit
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._ids = count(1)
        self._calls: dict[int, tuple[Replies, Callable[[], None]]] = {}
        self._outgoing: SharedArea | None = None
        self._incoming: SharedArea | None = None
        self._lent: dict[int, int] = {}
        self._read: list[int] = []
        self._abandoned: dict[int, int] = {}
        self._progress: Progress = lambda share: None
        self._loading_seconds = float("inf")
        self._endings = Endings(process.pid)
        self._unanswered = 0
        self._patience = _PINGS_UNTIL_HUNG
        self._timer: asyncio.TimerHandle | None = None
        self._verdict: WorkerDied | None = None
        self._transport: asyncio.Transport | None = None
        self._disconnected = self._loop.create_future()
        self._loaded: asyncio.Future[JsonObject] = self._loop.create_future()
        self.died: asyncio.Future[WorkerDied] = self._loop.create_future()
        self._watch = self._loop.create_task(self._await_end())

    @classmethod
    async def spawn(
        cls,
        factory: str,
        name: str,
        *,
        hang_after: float,
        memory_limit: int | None = None,
        on_death: Callable[[WorkerDied], None],
    ) -> Child:
        """Start a process for the engine ``factory``. Raises `AttemptError` when the system starts none."""
        ours, theirs = socket.socketpair()
        areas = [area for area in (new_area(), new_area()) if area is not None]
        scratch = ScratchFolder.make()
        inherited = (theirs.fileno(), *areas)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _MAIN, factory, *map(str, (os.getpid(), *inherited))),
                # Prints of native code may hold content.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
                env=worker_environment(os.environ, None if scratch is None else scratch.path),
                start_new_session=True,
            )
            child = cls(
                process, name, hang_after=hang_after, memory_limit=memory_limit, scratch=scratch, on_death=on_death
            )
            child._outgoing, child._incoming = map(SharedArea, areas) if areas else (None, None)
            await asyncio.get_running_loop().create_connection(lambda: child, sock=ours)
        except OSError as error:
            _undo(ours, scratch)
            sentence = f"backend {name!r} cannot start its engine's process ({error.strerror})"
            raise AttemptError(FailureKind.INTERNAL, sentence) from None
        except asyncio.CancelledError:
            _undo(ours, scratch)
            raise
        finally:
            theirs.close()
            for area in areas:
                os.close(area)
        child._tick()
        return child

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def load(
        self, settings: JsonObject, *, threads: int, progress: Progress, processor_seconds: float
    ) -> JsonObject:
        """Have the engine load; return its own account.

        Raises `AttemptError`, also where it takes more than so many seconds of processor time, and `WorkerDied` if it
        died of it.
        """
        self._progress = progress
        self._loading_seconds = processor_seconds
        path = [entry for entry in sys.path if entry]
        self._patience = _PINGS_UNTIL_HUNG * _LOADING_PATIENCE
        self._send({"op": "load", "settings": settings, "path": path, "threads": threads})
        try:
            return await self._loaded
        finally:
            self._patience = _PINGS_UNTIL_HUNG

    @property
    def busy(self) -> bool:
        """Whether the worker has a call or a question to work on."""
        return bool(self._calls)

    def call(self, parcel: Parcel, on_end: Callable[[], None]) -> Replies:
        """Send a call. ``on_end`` is called once, when the worker is done with it or has died."""
        return self._begin("call", parcel, on_end, self._cancel)

    def ask(self, question: Parcel, on_end: Callable[[], None]) -> Replies:
        """Send a question, which is answered beside all calls."""
        return self._begin("ask", question, on_end, self._abandon)

    def _begin(self, op: str, parcel: Parcel, on_end: Callable[[], None], cancel: Callable[[int], None]) -> Replies:
        id_ = next(self._ids)
        header: JsonObject = {"op": op, "id": id_, "credit": WINDOW, "body": parcel.fields, **self._take_read()}
        try:
            frame = self._encoded(header, parcel.payload)
        except FrameError:
            self._read += header.get("free", [])
            raise AttemptError(FailureKind.INVALID_REQUEST, "the request is too large for a local engine") from None
        replies = Replies(
            send_credit=lambda events: self._send({"op": "credit", "id": id_, "events": events}),
            send_cancel=lambda: cancel(id_),
        )
        self._calls[id_] = (replies, on_end)
        self._write(frame)
        return replies

    async def stop(self) -> None:
        """End the process within a second: by closing its socket, by SIGTERM, by SIGKILL."""
        self._judge(WorkerDied(FailureKind.PREEMPTED, f"backend {self._name!r} was stopped"))
        try:
            for end in (self._disconnect, self._process.terminate, self._process.kill):
                if self._watch.done():
                    return
                _signal(end)
                await asyncio.wait([self._watch], timeout=_STOP_STEP)
        except asyncio.CancelledError:
            _signal(self._process.kill)
            raise

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes, and with them any number of frames."""
        self._unanswered = 0
        try:
            for frame in self._reader.feed(data):
                self._handle(frame)
        except (FrameError, KeyError, TypeError, ValueError):
            self._kill(WorkerDied(FailureKind.PROTOCOL, f"the engine of backend {self._name!r} sent a malformed frame"))

    def connection_lost(self, error: Exception | None) -> None:
        """The worker has closed its end, most likely by dying."""
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        if not self._watch.done():
            self._loop.call_later(_EXIT_GRACE, self._kill_the_mute)

    def _handle(self, frame: Frame) -> None:
        header = frame.header
        match header["op"]:
            case "event":
                self._deliver(frame)
            case "end":
                if "body" in header:
                    self._deliver(frame)
                self._finish(header["id"], None)
            case "fail":
                failure = AttemptError(FailureKind(header["kind"]), str(header["sentence"]))
                if "id" in header:
                    self._finish(header["id"], failure)
                elif not self._loaded.done():
                    self._loaded.set_exception(failure)
            case "progress":
                self._progress(header["percent"] / 100)
            case "loaded":
                if not self._loaded.done():
                    self._loaded.set_result(header["info"])

    def _deliver(self, frame: Frame) -> None:
        header = frame.header
        payload = self._received(header["shared"]) if "shared" in header else frame.payload
        if (entry := self._calls.get(header["id"])) is not None:
            entry[0].add(Parcel(header["body"], payload))

    def _encoded(self, header: JsonObject, payload: bytes | memoryview) -> bytes:
        length = len(payload)
        if self._outgoing is not None and length >= LEAST and (start := self._outgoing.put(payload)) is not None:
            self._lent[header["id"]] = start
            return encode({**header, "shared": [start, length]})
        return encode(header, payload)

    def _received(self, shared: list[int]) -> bytes:
        """A copy, because the worker may write there again."""
        if self._incoming is None:
            raise ValueError("there is no shared memory")
        data = bytes(self._incoming.view(*shared))
        self._read.append(shared[0])
        return data

    def _take_read(self) -> JsonObject:
        """What a frame to the worker says of shared memory that may be used again: no frame of its own wakes it."""
        read, self._read = self._read, []
        return {"free": read} if read else {}

    def _finish(self, id_: int, failure: AttemptError | None) -> None:
        self._abandoned.pop(id_, None)
        if (lent := self._lent.pop(id_, None)) is not None and self._outgoing is not None:
            self._outgoing.free(lent)
        if (entry := self._calls.pop(id_, None)) is not None:
            replies, on_end = entry
            replies.end(failure)
            on_end()

    def _tick(self) -> None:
        if self._unanswered >= self._patience:
            seconds = self._patience * self._hang_after / _PINGS_UNTIL_HUNG
            sentence = f"the engine of backend {self._name!r} answered nothing for {seconds:.3g} s and was ended"
            self._kill(WorkerDied(FailureKind.STALLED, sentence))
            return
        if self._memory_limit is not None and (held := own_memory(self.pid)) > self._memory_limit:
            sentence = (
                f"the engine of backend {self._name!r} held {_mebibytes(held)} of memory, more than its limit of "
                f"{_mebibytes(self._memory_limit)}, and was ended"
            )
            self._kill(WorkerDied(FailureKind.CRASHED, sentence))
            return
        if not self._loaded.done() and processor_time(self.pid) > self._loading_seconds:
            # A file from outside may say of itself what takes for ever to make ready. A slow disk takes no such time.
            sentence = (
                f"the engine of backend {self._name!r} had not loaded its model after {self._loading_seconds:.3g} s of "
                "processor time; use a smaller one, or one from somebody you trust"
            )
            self._loaded.set_exception(AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence))
        if self._abandoned and min(self._abandoned.values()) <= 0:
            sentence = f"the engine of backend {self._name!r} went on with a cancelled call and was ended"
            self._kill(WorkerDied(FailureKind.STALLED, sentence))
            return
        for id_ in self._abandoned:
            self._abandoned[id_] -= 1
        self._unanswered += 1
        self._endings.look()
        self._send({"op": "ping", **self._take_read()})
        self._timer = self._loop.call_later(self._hang_after / _PINGS_UNTIL_HUNG, self._tick)

    def _cancel(self, id_: int) -> None:
        self._abandoned[id_] = _PINGS_UNTIL_HUNG
        self._send({"op": "cancel", "id": id_})

    def _abandon(self, id_: int) -> None:
        self._abandoned[id_] = _PINGS_UNTIL_HUNG * _QUESTION_PATIENCE

    def _send(self, header: JsonObject) -> None:
        self._write(encode(header))

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _judge(self, verdict: WorkerDied) -> None:
        """The first verdict stands: what follows is its consequence."""
        self._verdict = self._verdict or verdict

    def _kill(self, verdict: WorkerDied) -> None:
        self._judge(verdict)
        _signal(self._process.kill)
        self._disconnect()

    def _kill_the_mute(self) -> None:
        if not self._watch.done():
            sentence = f"the engine of backend {self._name!r} closed its connection and was ended"
            self._kill(WorkerDied(FailureKind.PROTOCOL, sentence))

    def _disconnect(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _await_end(self) -> None:
        status = await self._process.wait()
        # What the worker sent before it died is still in the socket; a forked grandchild may hold that open.
        await asyncio.wait([self._disconnected], timeout=_EXIT_GRACE)
        self._disconnect()
        if self._scratch is not None:
            self._scratch.remove()
        if self._timer is not None:
            self._timer.cancel()
        reason = self._verdict or death_of(self._name, status, self._endings)
        if not self._loaded.done():
            self._loaded.set_exception(reason)
            self._loaded.exception()  # Nobody may be waiting for it.
        self._on_death(reason)
        for id_ in list(self._calls):
            self._finish(id_, AttemptError(reason.kind, reason.sentence))
        self.died.set_result(reason)


def _undo(ours: socket.socket, scratch: ScratchFolder | None) -> None:
    """What a worker's start leaves when it fails; a process that has begun ends with the socket."""
    ours.close()
    if scratch is not None:
        scratch.remove()


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except ProcessLookupError:
        return


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
