"""One SQLite file: opened with the durability that a receipt promises, set aside when it is damaged."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ...core.errors import OutboxError
from ..patience import tried
from .errors import OutboxCorrupt, OutboxMissing, translated
from .schema import NotAnOutbox, migrate

log = logging.getLogger("edgewise")

_BUSY_SECONDS = 10.0
_PARTS = ("", "-wal", "-shm")


class Database:
    """One connection for a process, used by one thread at a time. Opens with the first use, and again after `close`.

    ``prepare`` is called with every connection, before anything else is done with it. Only `create` makes a file where
    there is none; all else raises `OutboxMissing` there.

    Its methods block. They raise `OutboxError`, never SQLite's own errors.
    """

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self._file = -1
        self._presence = -1
        self._lock = threading.RLock()
        self._to_scrub = False
        self._erased = False
        self._to_rewrite = True  # what the processes before this one have erased is not known

    def create(self) -> None:
        """Make the file and its folder, where they are not there."""
        with self._lock, self._typed_errors():
            self._close_if_moved()
            if self._connection is None:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._be_present(fcntl.LOCK_SH)
                self._make_private()
                self._open()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, to read from."""
        with self._lock, self._typed_errors():
            yield self._opened()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on the disk when the block is left, undone where it raised."""
        with self._lock, self._typed_errors():
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.rollback()
            if self._to_scrub:
                self._scrub(connection)

    def content_erased(self) -> None:
        """Within `writing`: content was erased, so that neither the log nor another place may keep it."""
        self._to_scrub = self._to_rewrite = self._erased = True

    def rewrite(self) -> None:
        """Write the file anew, if content was erased since that was last done.

        SQLite overwrites what is deleted, but not the copies that it leaves where it has moved entries between pages.
        """
        with self._lock, self._typed_errors():
            if self._to_rewrite:
                self._rewrite(self._opened())

    def close(self) -> None:
        """Free the file. Idempotent."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):  # a damaged file is closed, too
                    if self._erased and self._to_rewrite:
                        self._rewrite(self._connection)
                    self._scrub(self._connection)
                self._connection.close()
                self._connection = None
            if self._presence >= 0:
                os.close(self._presence)
                self._presence = -1

    def _rewrite(self, connection: sqlite3.Connection) -> None:
        """Where another process writes just now, or the disk is full, a later one does it."""
        with suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")
            self._to_rewrite = False
        self._scrub(connection)

    def _scrub(self, connection: sqlite3.Connection) -> None:
        """Empty the write-ahead log. Where another process reads just now, or the disk is full, a later one does it.

        What made it necessary is committed already, so that nothing is raised.
        """
        self._to_scrub = True
        with suppress(sqlite3.OperationalError):
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._to_scrub = bool(busy)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            ours = translated(error, self.path.name)
        except NotAnOutbox as error:
            ours = OutboxError(f"the outbox {self.path.name} cannot be used: {error}")
        else:
            return
        if isinstance(ours, OutboxCorrupt):
            self.close()
        raise ours from None

    def _opened(self) -> sqlite3.Connection:
        self._close_if_moved()
        if self._connection is None:
            self._open()
        assert self._connection is not None
        return self._connection

    def _close_if_moved(self) -> None:
        """Where somebody has removed or replaced the file, what is written to the old one would be lost."""
        if self._connection is None or self._connection.in_transaction:
            return
        try:
            there = self.path.stat().st_ino
        except OSError:
            there = -1
        if there != self._file:
            self._connection.close()  # without a trace: its log may have another file's name by now
            self._connection = None

    def _open(self) -> None:
        if not (self.path.exists() or self._presence_file.exists()):
            raise OutboxMissing(self.path)
        self._be_present(fcntl.LOCK_SH)
        try:
            if not self.path.exists():
                raise OutboxMissing(self.path)
            self._make_private()
            try:
                self._connection = self._connect()
            except sqlite3.Error as error:
                if not isinstance(translated(error, self.path.name), OutboxCorrupt):
                    raise
                self._set_aside()
                self._make_private()
                self._connection = self._connect()
            self._file = self.path.stat().st_ino
        finally:
            if self._connection is None:
                self.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        # Damage inside a text shows in that one text, and not as an error of the whole query.
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        try:
            _keep_a_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")  # no content beside the file
            # A single entry that was altered is no reason to set all of them aside.
            connection.execute("PRAGMA ignore_check_constraints = ON")
            _require_whole(connection)
            migrate(connection)
            connection.row_factory = sqlite3.Row
            self._prepare(connection)
            connection.execute("PRAGMA ignore_check_constraints = OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_private(self) -> None:
        """For the owner's eyes alone; SQLite gives the log the database's own mode."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            # Not by opening it: closing any descriptor of it would drop another connection's locks in this process.
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o600)

    @property
    def _presence_file(self) -> Path:
        return self.path.with_name(self.path.name + "-lock")

    def _be_present(self, how: int) -> None:
        """Whoever uses the file holds this lock, shared; whoever sets it aside holds it alone."""
        if self._presence < 0:
            self._presence = os.open(self._presence_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._presence, how)

    def _set_aside(self) -> None:
        """Move a damaged file away, unless another process works on it: its entries would go with the old file."""
        try:
            self._be_present(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutboxError(
                f"the outbox {self.path.name} is damaged, and another process has it open; close that one first"
            ) from None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        aside = f"{self.path.name}.damaged-{stamp}"
        for part in _PARTS:
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{part}", self.path.with_name(aside + part))
        self._be_present(fcntl.LOCK_SH)
        log.error("the outbox %s was damaged; it is set aside as %s, and a new one begins", self.path.name, aside)


def _require_whole(connection: sqlite3.Connection) -> None:
    """Raise SQLite's own error where the file is damaged. Damage to an index alone is mended from what it indexes."""
    if _is_whole(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("REINDEX")
        if not _is_whole(connection):
            damaged = sqlite3.DatabaseError("damaged")
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _is_whole(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")


def _keep_a_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, which SQLite itself does not wait for: several may open a new file at once."""

    def switched() -> bool:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return False
        return True

    if not tried(switched, _BUSY_SECONDS):
        connection.execute("PRAGMA journal_mode = WAL")
