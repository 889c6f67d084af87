"""The worker's side: a control thread that always listens, engine threads that do the work, one that answers questions.

Frames from the application: ``load``, ``call``, ``credit``, ``cancel``, ``ask``, ``ping``. Frames to it: ``progress``,
``loaded``, ``event``, ``end``, ``fail`` (the last three carry the id of their call or question), and ``pong``. An
``end`` may have the last event in it. Where a ``call``, ``ask``, ``event`` or ``end`` has ``shared``, its payload lies
there in shared memory; ``free`` in a frame from the application says what of that has been read.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import NoReturn

from ...core.failure import AttemptError, FailureKind
from .engine import Engine, Events, Parcel, Progress, RunningCall
from .frames import Frame, FrameError, FrameReader, JsonObject, encode
from .shared import LEAST, SharedArea

EXIT_BAD_FRAME = 70

_READ_BYTES = 1 << 18
_LOOK_FOR_PARENT_EVERY_MS = 1000
_MUTE_AT_MOST_S = 60


def _leave(code: int = 0) -> NoReturn:
    """End the process now, whatever native code is running on other threads."""
    os._exit(code)


class Worker:
    """One engine, served over one socket to the process ``application``."""

    def __init__(
        self,
        application: int,
        channel: socket.socket,
        factory: str,
        incoming: SharedArea | None = None,
        outgoing: SharedArea | None = None,
    ) -> None:
        self._application = application
        self._channel = channel
        self._factory = factory
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = threading.Lock()
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._questions: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._calls: dict[int, RunningCall] = {}
        self._engine: Engine | None = None

    def serve(self) -> NoReturn:
        """The control thread: read frames until the socket ends, then end the process."""
        reader = FrameReader()
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            data = self._receive(poll)
            if not data:
                _leave()
            try:
                for frame in reader.feed(data):
                    self._handle(frame)
            except (FrameError, KeyError, TypeError, ValueError):
                _leave(EXIT_BAD_FRAME)

    def _receive(self, poll: select.poll) -> bytes:
        while True:
            # If native code keeps the interpreter for itself, this thread cannot notice the application's death; the
            # system then ends the process.
            signal.alarm(_MUTE_AT_MOST_S)
            if poll.poll(_LOOK_FOR_PARENT_EVERY_MS):
                break
            # A forked child of the application may hold the other end open after the application's death.
            if os.getppid() != self._application:
                _leave()
        try:
            return self._channel.recv(_READ_BYTES)
        except OSError:
            return b""

    def _handle(self, frame: Frame) -> None:
        header = frame.header
        for start in header.get("free", ()):
            assert self._outgoing is not None, "only what lies there is freed"
            self._outgoing.free(start)
        match header["op"]:
            case "call":
                running = self._calls[header["id"]] = RunningCall(header["credit"])
                self._work.put(partial(self._run, header["id"], self._parcel(frame), running))
            # A call that has ended meanwhile is not missed.
            case "credit":
                if (credited := self._calls.get(header["id"])) is not None:
                    credited.add_credit(header["events"])
            case "cancel":
                if (cancelled := self._calls.get(header["id"])) is not None:
                    cancelled.cancel()
            case "ask":
                self._questions.put(partial(self._answer, header["id"], self._parcel(frame)))
            case "ping":
                self._send({"op": "pong"})
            case "load":
                # Engines are found where the application would find them.
                sys.path[:] = header["path"]
                for number in range(header["threads"]):
                    _start(f"engine-{number}", self._work)
                _start("questions", self._questions)
                self._work.put(partial(self._load, header["settings"]))

    def _load(self, settings: JsonObject) -> None:
        try:
            module, _, name = self._factory.partition(":")
            engine: Engine = getattr(import_module(module), name)()
            info = engine.load(settings, self._progress())
        except AttemptError as error:
            self._send(_failure(error))
        except BaseException as error:  # noqa: BLE001  # whatever keeps it from loading, the application must know
            sentence = f"the engine cannot load its model ({type(error).__name__})"
            self._send(_failure(AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)))
        else:
            self._engine = engine
            self._send({"op": "loaded", "info": info})

    def _progress(self) -> Progress:
        """Hands on what a loading tells of itself, by whole percents."""
        told = 0

        def tell(share: float) -> None:
            nonlocal told
            percent = int(100 * share)
            if percent > told:
                told = percent
                self._send({"op": "progress", "percent": percent})

        return tell

    def _run(self, id_: int, call: Parcel, running: RunningCall) -> None:
        try:
            with closing(self._loaded().run(call, running)) as events:
                end = self._frame("end", id_, None if running.cancelled else self._send_events(id_, events, running))
        except BaseException as error:  # noqa: BLE001  # an engine's mistake fails one call; Rust's panic is no Exception
            end = encode(_failure(error) | {"id": id_})
        # Before the application hears of the end: it may reuse nothing of this call afterwards.
        del self._calls[id_]
        self._write(end)

    def _send_events(self, id_: int, events: Events, running: RunningCall) -> Parcel | None:
        """Send all that are yielded; returns the one that is returned, for a call that was not cancelled."""
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return None if running.cancelled else end.value
            if not running.take_credit():
                return None
            self._write(self._frame("event", id_, event))

    def _answer(self, id_: int, question: Parcel) -> None:
        try:
            end = self._frame("end", id_, self._loaded().ask(question))
        except BaseException as error:  # noqa: BLE001  # an engine's mistake fails one question, not the worker
            end = encode(_failure(error) | {"id": id_})
        self._write(end)

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, "the engine has not loaded its model")
        return self._engine

    def _parcel(self, frame: Frame) -> Parcel:
        header = frame.header
        if "shared" not in header:
            return Parcel(header["body"], frame.payload)
        assert self._incoming is not None, "the application put it there"
        return Parcel(header["body"], self._incoming.view(*header["shared"]))

    def _frame(self, op: str, id_: int, event: Parcel | None) -> bytes:
        """The frame that tells of an event, of the end, or of both. Raises `FrameError`."""
        header: JsonObject = {"op": op, "id": id_}
        if event is None:
            return encode(header)
        header["body"] = event.fields
        length = len(event.payload)
        if self._outgoing is not None and length >= LEAST and (start := self._outgoing.put(event.payload)) is not None:
            return encode({**header, "shared": [start, length]})
        return encode(header, event.payload)

    def _send(self, header: JsonObject) -> None:
        self._write(encode(header))

    def _write(self, frame: bytes) -> None:
        try:
            with self._sending:
                self._channel.sendall(frame)
        except OSError:
            _leave()


def _start(name: str, work: SimpleQueue[Callable[[], None]]) -> None:
    """A thread that does one piece of work after another for as long as the process lives."""

    def do_all() -> None:
        while True:
            work.get()()

    threading.Thread(target=do_all, name=name, daemon=True).start()


def _failure(error: BaseException) -> JsonObject:
    """Only an `AttemptError`'s text crosses over: another exception's may quote content."""
    match error:
        case AttemptError():
            kind, sentence = error.kind, error.sentence
        case FrameError():
            kind, sentence = FailureKind.INTERNAL, "the engine's answer is too large to hand over"
        case _:
            kind, sentence = FailureKind.INTERNAL, f"the engine failed ({type(error).__name__})"
    return {"op": "fail", "kind": kind.value, "sentence": sentence}
