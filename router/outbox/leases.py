"""Who may replay: one process at a time, for as long as it says so again and again."""

from __future__ import annotations

import sqlite3

from .database import Database

LEASE_SECONDS = 30.0
"""How long a crashed replayer keeps the others waiting, at most."""

_REPLAY = "replay"


class Lease:
    """The right to replay, held under a random ``holder`` name. Times are wall-clock seconds; methods block."""

    def __init__(self, database: Database, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self.holder = holder
        self.seconds = seconds

    def take(self, now: float) -> bool:
        """Take or renew it; false where another one has it."""
        with self._database.reading() as connection:
            if _other_holds(connection, self.holder, now, self.seconds):
                return False
        with self._database.writing() as connection:
            if _other_holds(connection, self.holder, now, self.seconds):
                return False
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at",
                (_REPLAY, self.holder, now + self.seconds),
            )
        return True

    def release(self) -> None:
        """Give it back, if it is still ours."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (_REPLAY, self.holder))

    def held(self, connection: sqlite3.Connection, now: float) -> bool:
        """Whether it is ours, for a transaction that depends on it."""
        row = connection.execute("SELECT holder, expires_at FROM leases WHERE name = ?", (_REPLAY,)).fetchone()
        return row is not None and row[0] == self.holder and now < row[1]


def _other_holds(connection: sqlite3.Connection, holder: str, now: float, seconds: float) -> bool:
    row = connection.execute("SELECT holder, expires_at FROM leases WHERE name = ?", (_REPLAY,)).fetchone()
    if row is None or row[0] == holder:
        return False
    # A lease that ends later than any could is from before the clock was set back.
    return bool(now < row[1] <= now + seconds)
