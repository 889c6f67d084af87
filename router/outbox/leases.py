"""Who may replay, or deliver: one process at a time, for as long as it says so again and again."""

from __future__ import annotations

import sqlite3

from .database import Database

LEASE_SECONDS = 30.0
"""How long a crashed process keeps the others waiting, at most."""


# One that ends later than any could is from before the clock was set back; one that ends at no time was altered.
_RUNS = "typeof(expires_at) IN ('real', 'integer') AND expires_at > ? AND expires_at <= ?"


class Lease:
    """The right to do what ``name`` says, held by a random ``holder``. Times are wall-clock seconds; methods block."""

    def __init__(
        self, database: Database, holder: str, seconds: float = LEASE_SECONDS, *, name: str = "replay"
    ) -> None:
        self._database = database
        self._name = name
        self.holder = holder
        self.seconds = seconds

    def take(self, now: float) -> bool:
        """Take or renew it; false where another one has it."""
        with self._database.reading() as connection:
            if self._other_holds(connection, now):
                return False
        with self._database.writing() as connection:
            if self._other_holds(connection, now):
                return False
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at",
                (self._name, self.holder, now + self.seconds),
            )
        return True

    def release(self) -> None:
        """Give it back, if it is still ours."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (self._name, self.holder))

    def held(self, connection: sqlite3.Connection, now: float) -> bool:
        """Whether it is ours, for a transaction that depends on it."""
        query = f"SELECT 1 FROM leases WHERE name = ? AND holder = ? AND {_RUNS}"
        return connection.execute(query, (self._name, self.holder, now, now + self.seconds)).fetchone() is not None

    def _other_holds(self, connection: sqlite3.Connection, now: float) -> bool:
        query = f"SELECT 1 FROM leases WHERE name = ? AND holder != ? AND {_RUNS}"
        return connection.execute(query, (self._name, self.holder, now, now + self.seconds)).fetchone() is not None
