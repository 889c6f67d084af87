"""How many threads serve best: llama.cpp's spin, so that one too many slows all down."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int:
    """The physical cores, as far as this process may use them by its affinity and its container's quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable, _quota() or usable))


def _quota() -> int | None:
    """Whole processors that the container may use; None without a limit."""
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None
