"""The control groups that a process belongs to (Linux): what memory they leave it, and whom the system ended in them.

A container's limit and a service's (``MemoryMax=``) are limits of such groups. Both versions of them are read: in the
first, memory has a tree of its own. Elsewhere there are none, and every answer is that nothing is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Version:
    root: Path
    limit: str
    used: str
    cached: str
    events: str


_FIRST = _Version(
    Path("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"
)
_SECOND = _Version(Path(), "memory.max", "memory.current", "inactive_file", "memory.events")


def memory_limit() -> int | None:
    """The most bytes that this process's groups may hold; None without a limit."""
    limits = (_limit(folder, version) for folder, version in _own_groups())
    return min((limit for limit in limits if limit is not None), default=None)


def memory_left() -> int | None:
    """The bytes that this process's groups may still take; None without a limit.

    What they hold of files that nobody has read lately is counted as left: the system gives it back first.
    """
    left = []
    for folder, version in _own_groups():
        limit, used = _limit(folder, version), _number(folder / version.used)
        if limit is not None and used is not None:
            left.append(max(0, limit - used + _table(folder / "memory.stat").get(version.cached, 0)))
    return min(left, default=None)


class Endings:
    """Whether the system ended one process for want of memory, by what the process's own group counts.

    A count says how many of a group were ended, not who. So it is looked at regularly while the process lives, and
    what was counted before the last but one look was somebody else.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: deque[tuple[Path, int]] = deque(maxlen=2)

    def look(self) -> None:
        """Note the count, while the process lives."""
        if (found := _group(str(self._pid))) is None:
            return
        folder, version = found
        if (count := _ended(folder / version.events)) is not None:
            self._seen.append((folder / version.events, count))

    def of_memory(self) -> bool | None:
        """Whether the process, which was killed, was killed for want of memory; None where nobody tells."""
        if not self._seen:
            return None
        return any((_ended(file) or 0) > count for file, count in self._seen)


def _own_groups() -> Iterator[tuple[Path, _Version]]:
    """This process's group and all above it, each of which may have a limit."""
    if (found := _group("self")) is None:
        return
    folder, version = found
    top = _GROUPS / version.root
    while folder.is_relative_to(top):
        yield folder, version
        folder = folder.parent


def _group(process: str) -> tuple[Path, _Version] | None:
    """The group that counts a process's memory."""
    try:
        lines = (_PROCESSES / process / "cgroup").read_text().splitlines()
    except OSError:
        return None
    found = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    first = next((path for controllers, path in found.items() if "memory" in controllers.split(",")), None)
    version, path = (_SECOND, found.get("")) if first is None else (_FIRST, first)
    if path is None:
        return None
    top = _GROUPS / version.root
    folder = top / path.lstrip("/")
    # A container may see the machine's path, and its own group as the top.
    return (folder if folder.is_dir() else top), version


def _ended(events: Path) -> int | None:
    return _table(events).get("oom_kill")


def _limit(folder: Path, version: _Version) -> int | None:
    return _number(folder / version.limit)  # `max` is no number


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _table(file: Path) -> dict[str, int]:
    """What lines of a name and a number say."""
    try:
        return {name: int(number) for name, number in (line.split() for line in file.read_text().splitlines())}
    except (OSError, ValueError):
        return {}
