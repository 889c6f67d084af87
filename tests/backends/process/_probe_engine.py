"""An engine without a model, which does what a test asks of it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from edgewise.backends.process.engine import Engine, Parcel, Progress, RunningCall
from edgewise.backends.process.frames import JsonObject, encode
from edgewise.core.failure import AttemptError, FailureKind


class Panic(BaseException):
    """How a library written in Rust fails."""


class ProbeEngine(Engine):
    """``fields["do"]`` names a method here; its events are the call's."""

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        self._produced = 0
        if "links" in settings:
            (Path(tempfile.mkdtemp()) / "link").symlink_to(settings["links"])
        match settings.get("load"):
            case "slowly":
                progress(0.254)
                while not Path(settings["until"]).exists():
                    time.sleep(0.001)
            case "endlessly":
                while True:
                    pass
            case "refuse":
                raise AttemptError(FailureKind.MODEL_UNAVAILABLE, "there is no such model; install one")
            case "raise":
                raise RuntimeError("a text with secret content")
            case "leave":
                raise SystemExit("a text with secret content")
            case "crash":
                signal.raise_signal(signal.SIGSEGV)  # on this thread, at once
            case "kill":
                signal.raise_signal(signal.SIGKILL)
        return {"settings": settings, "pid": os.getpid()}

    def run(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield from getattr(self, call.fields["do"])(call, running)

    def ask(self, question: Parcel) -> Parcel:
        if question.fields.get("raise"):
            raise KeyError("secret")
        if question.fields.get("leave"):
            raise SystemExit("secret")
        while (until := question.fields.get("until")) is not None and not Path(until).exists():
            time.sleep(0.001)
        return Parcel({"length": len(question.payload), "produced": self._produced})

    def echo(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield call

    def look(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """Whether the payload lies in shared memory."""
        yield Parcel({"shared": isinstance(call.payload, memoryview)})

    def count(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """``n`` events, numbered from 0."""
        for number in range(call.fields["n"]):
            if running.cancelled:
                return
            yield Parcel({"number": number})

    def count_ahead(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """Events without end, counted as they are made."""
        while True:
            self._produced += 1
            yield Parcel({"number": self._produced})

    def take_memory(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """Hold ``n`` bytes until cancelled."""
        held = b"x" * call.fields["n"]
        while not running.cancelled:
            time.sleep(0.001)
        yield Parcel({"held": len(held)})

    def hold(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """One event, then work until cancelled."""
        yield Parcel({"started": True})
        while not running.cancelled:
            time.sleep(0.001)

    def hold_interpreter(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """One event, then native code that keeps the interpreter lock for a minute."""
        yield Parcel({"started": True})
        ctypes.PyDLL(None).sleep(60)

    def native_sleep(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """One event, then native code that cannot be cancelled, for a minute."""
        yield Parcel({"started": True})
        ctypes.CDLL(None).sleep(60)

    def panic(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield Parcel({"started": True})
        raise Panic("a secret")

    def fail(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield Parcel({"started": True})
        raise ValueError(f"cannot do {call.fields['text']}")

    def refuse(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield from ()
        raise AttemptError(FailureKind.CONTEXT_LENGTH, "900 tokens do not fit into 512")

    def die(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield Parcel({"started": True})
        os.kill(os.getpid(), call.fields["signal"])
        time.sleep(60)

    def leave(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        yield from ()
        os._exit(3)

    def nonsense(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """Bytes that are no frame, on whichever descriptor is the socket."""
        yield from ()
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"\0\0\0\4\0\0\0\0null")
            except OSError:
                continue
        time.sleep(60)

    def misdirect(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """An event whose payload lies beyond the shared memory, on whichever descriptor is the socket."""
        yield from ()
        frame = encode({"op": "event", "id": 1, "body": {}, "shared": [1 << 40, 8]})
        for descriptor in range(3, 64):
            if stat.S_ISSOCK(_mode(descriptor)):
                os.write(descriptor, frame)
        time.sleep(60)

    def scratch(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """Where its temporary files lie."""
        yield Parcel({"folder": tempfile.gettempdir()})

    def account(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """What the process has made of itself."""
        yield Parcel(
            {
                "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
                "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
                "nice": os.nice(0),
                "ended_sooner": int(Path("/proc/self/oom_score_adj").read_text()),
                "ends_itself_when_mute": 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60,
                "session": os.getsid(0) == os.getpid(),
                "ignores_interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
                "outputs": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
            }
        )


def _mode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mode
    except OSError:
        return 0
