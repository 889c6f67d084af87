"""What a worker does to itself before it sees any content."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_NICENESS = 5
_ENDED_SOONER = 300
_MOST = 1000
_HOW_SOON = Path("/proc/self/oom_score_adj")


def harden() -> None:
    """Leave no core file, show memory to no other process, yield to the application, leave Ctrl-C to it.

    Where memory runs out, the system is to end this process before the application.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _ended_first()
        # Here and not in the parent, because exec resets it.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
        # A stopped process does not notice that the application has ended. Sent too when but the thread ends that
        # started this one, and so no signal that would end it.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ended_first() -> None:
    try:
        _HOW_SOON.write_text(str(min(_MOST, int(_HOW_SOON.read_text()) + _ENDED_SOONER)))
    except OSError:
        # A sandbox without /proc: the system chooses by size alone.
        return
