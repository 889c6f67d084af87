"""Whether a file has changed, told without reading it."""

from __future__ import annotations

import os
from collections.abc import Iterable

FileVersion = tuple[int, int, int]
"""When it was written, its length, and which file it is: renaming another over it counts too."""


def versions(paths: Iterable[str]) -> tuple[FileVersion | None, ...]:
    """The version of each file as it is now; ``None`` for one that is not there."""
    return tuple(map(_version, paths))


def _version(path: str) -> FileVersion | None:
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
