"""What SQLite's errors mean to whoever uses an outbox."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...core.errors import OutboxError, OutboxFull

_CODE = 0xFF  # the rest of an error code says only where it happened
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT})


class OutboxCorrupt(OutboxError):
    """The database is damaged. The next use mends it, or sets it aside and begins a new one."""


class OutboxMissing(OutboxError):
    """There is no file: nothing was ever submitted there, or its name is wrong."""

    def __init__(self, path: Path) -> None:
        mend = "the first `submit` makes it; look at `policy.offline.outbox` in the configuration"
        super().__init__(f"there is no outbox {path}: {mend}")


def translated(error: sqlite3.Error | OSError, file: str) -> OutboxError:
    """The error as ours. SQLite's own text may quote values, so it is left behind."""
    if isinstance(error, OSError):
        return OutboxError(f"the outbox {file} cannot be used: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _CODE
    if code in _CORRUPT:
        return OutboxCorrupt(f"the outbox {file} is damaged; the next use mends it or sets it aside")
    if code == sqlite3.SQLITE_FULL:
        return OutboxFull(f"there is no room on the disk for the outbox {file}; free some")
    if code == sqlite3.SQLITE_BUSY:
        return OutboxError(f"the outbox {file} is held by another process; try again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return OutboxError(f"the outbox {file} cannot be opened for writing; look at its folder's permissions")
    if code == sqlite3.SQLITE_IOERR:
        return OutboxError(f"the disk failed under the outbox {file}; look at the disk, and at limits on file sizes")
    return OutboxError(f"the outbox {file} cannot be used (SQLite error {code})")
