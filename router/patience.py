"""Waiting for what another process holds: a lock that cannot be waited for otherwise, or not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE = 0.02


def tried(attempt: Callable[[], bool], seconds: float) -> bool:
    """Try until it succeeds, and for so long at most; whether it did. Blocks."""
    until = time.monotonic() + seconds
    while not attempt():
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE)
    return True
