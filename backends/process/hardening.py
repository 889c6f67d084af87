"""What a worker does to itself before it sees any content."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_DUMPABLE = 4
_NICENESS = 5


def harden() -> None:
    """Leave no core file, show memory to no other process, yield to the application, leave Ctrl-C to it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Here and not in the parent, because exec resets it.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
