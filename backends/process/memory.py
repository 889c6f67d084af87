"""How much memory a process holds of its own."""

from __future__ import annotations

import psutil


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
