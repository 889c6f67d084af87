"""What holds for every test."""

from __future__ import annotations

import signal

# A shell that runs the tests in the background has them ignore interrupts, and every program that they start would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
