"""Why a worker's process has ended, each way told apart."""

from __future__ import annotations

import signal

from ...core.failure import AttemptError, FailureKind
from .control_group import Endings

_NATIVE_CRASHES = {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT}


class WorkerDied(AttemptError):
    """The process has ended, or had to be ended. ``native_crash``: by a fault of native code."""

    def __init__(self, kind: FailureKind, sentence: str, *, native_crash: bool = False) -> None:
        super().__init__(kind, sentence)
        self.native_crash = native_crash


def death_of(name: str, status: int, endings: Endings) -> WorkerDied:
    """Why, by the exit status (below 0 the number of a signal), and by what its control group knows of it."""
    if status >= 0:
        return WorkerDied(FailureKind.CRASHED, f"the engine of backend {name!r} exited with status {status}")
    try:
        number = signal.Signals(-status)
    except ValueError:
        return WorkerDied(FailureKind.CRASHED, f"the engine of backend {name!r} died by signal {-status}")
    if number is signal.SIGKILL and (of_memory := endings.of_memory()) is not False:
        why = "by the system for want of memory" if of_memory else "from outside (SIGKILL), likely for want of memory"
        sentence = f"the engine of backend {name!r} was ended {why}; use a smaller model or context"
        return WorkerDied(FailureKind.CRASHED, sentence)
    sentence = f"the engine of backend {name!r} died by {number.name}"
    return WorkerDied(FailureKind.CRASHED, sentence, native_crash=number in _NATIVE_CRASHES)
