"""A worker's folder for temporary files. The application makes and removes it, because a worker may end at any moment.

The application holds a lock on it, which ends with the application, however that ends: what nobody holds is a leftover,
and the next worker that anybody starts removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "edgewise-worker-"
_TRIES = 10


class ScratchFolder:
    """One such folder, for this user alone."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def make(cls) -> ScratchFolder | None:
        """Make one; None where the system has no place for temporary files, which most engines do not need."""
        for _ in range(_TRIES):
            try:
                path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            except OSError:
                return None
            if (made := _locked(path)) is not None:
                return made
            # Somebody took it for a leftover, in the moment before it was locked; or it cannot be opened or locked.
            with suppress(OSError):
                path.rmdir()
        return None

    def remove(self) -> None:
        """Remove it with all that is in it. Nobody writes there any more. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(lock)


def remove_leftovers() -> None:
    """Remove the folders of this user's applications that have ended without doing so. Blocks."""
    with suppress(OSError):  # there is no place for temporary files, or it cannot be read
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if (leftover := _locked(path)) is not None:
                leftover.remove()


def _locked(path: Path) -> ScratchFolder | None:
    """The folder, locked; None where somebody else holds, has removed or owns it, or where it cannot be locked."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        here = os.fstat(lock)
        if here.st_uid == os.geteuid() and os.path.samestat(here, path.lstat()):
            return ScratchFolder(path, lock)
    os.close(lock)
    return None
