"""Whether a file has changed, told without reading it."""

from __future__ import annotations

import asyncio
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


_SEEN_EVERY = 1.0
"""Seconds between two looks at files in passing."""


class WatchedFiles:
    """Files that may be replaced, as those with certificates are."""

    def __init__(self, paths: Iterable[str | None]) -> None:
        """``None`` among the paths is no file."""
        self._paths = tuple(path for path in paths if path is not None)
        self._versions = versions(self._paths)
        self._look_at = 0.0

    def read(self) -> None:
        """They are being read now."""
        self._versions = versions(self._paths)

    def replaced(self) -> bool:
        """Whether they have been replaced since they were read."""
        return versions(self._paths) != self._versions

    def seen_replaced(self) -> bool:
        """The same, looked at once a second at most: cheap enough for every call."""
        if not self._paths:
            return False
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return False
        self._look_at = now + _SEEN_EVERY
        return self.replaced()
