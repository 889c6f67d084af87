"""How much a process takes of the machine: memory and processor time; and how much memory there is."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from .control_group import memory_left, memory_limit


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


def processor_time(pid: int) -> float:
    """Seconds that a process has computed, on all processors together; 0 for one that has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def locked_memory() -> int | None:
    """Bytes that this process keeps from being swapped out; None where the system does not say (Linux says)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    locked = re.search(r"^VmLck:\s*([0-9]+) kB$", status, re.MULTILINE)
    return None if locked is None else int(locked[1]) << 10


def free_memory() -> int:
    """Bytes that a new process could have now, by the machine and by the limits of containers and services."""
    free = int(psutil.virtual_memory().available)
    left = memory_left()
    return free if left is None else min(free, left)


def all_memory() -> int:
    """Bytes of memory that there are, by the machine and by the limits of containers and services."""
    everything = int(psutil.virtual_memory().total)
    limit = memory_limit()
    return everything if limit is None else min(everything, limit)
