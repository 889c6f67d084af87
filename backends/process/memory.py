"""How much memory a process holds of its own, how much there is, and whether the system had to end somebody."""

from __future__ import annotations

from pathlib import Path

import psutil

_VMSTAT = Path("/proc/vmstat")
_CGROUP = Path("/sys/fs/cgroup")


def own_memory(pid: int) -> int:
    """Bytes that are resident and belong to this process alone; 0 for one that has ended.

    Files mapped into it, such as a model's, do not count where the system tells them apart (Linux): they are given back
    when others need the memory.
    """
    try:
        held = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(held.rss - getattr(held, "shared", 0))


def oom_kills() -> int:
    """How many processes the system has ended for want of memory since it started; 0 where it does not tell."""
    try:
        counts = dict(line.split(" ", 1) for line in _VMSTAT.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def free_memory() -> int:
    """Bytes that a new process could have now, by the machine and by the container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit, or written as `max`
        return free
    return max(0, min(free, limit - used))


def all_memory() -> int:
    """Bytes of memory that there are, by the machine and by the container's limit."""
    everything = int(psutil.virtual_memory().total)
    try:
        return min(everything, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):
        return everything
