"""Who may replay, or deliver: one process at a time, for as long as it says so again and again."""

from __future__ import annotations

import sqlite3

from .database import Database

LEASE_SECONDS = 30.0
"""How long a crashed process keeps the others waiting, at most."""


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
        row = connection.execute("SELECT holder, expires_at FROM leases WHERE name = ?", (self._name,)).fetchone()
        return row is not None and row[0] == self.holder and now < row[1]

    def _other_holds(self, connection: sqlite3.Connection, now: float) -> bool:
        row = connection.execute("SELECT holder, expires_at FROM leases WHERE name = ?", (self._name,)).fetchone()
        if row is None or row[0] == self.holder:
            return False
        # A lease that ends later than any could is from before the clock was set back.
        return bool(now < row[1] <= now + self.seconds)
