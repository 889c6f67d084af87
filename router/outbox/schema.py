"""The outbox's tables, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x45445745
"""Marks a database as an outbox, so that another application's file is never taken for one ('EDWE')."""

_FIRST = (
    """
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        receipt TEXT NOT NULL UNIQUE,
        idempotency_key TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        order_key TEXT,
        submitted_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        not_before REAL NOT NULL DEFAULT 0,
        sends INTEGER NOT NULL DEFAULT 0,
        strikes INTEGER NOT NULL DEFAULT 0,
        waits INTEGER NOT NULL DEFAULT 0,
        labels TEXT NOT NULL,
        content TEXT,
        answer TEXT,
        bytes INTEGER NOT NULL,
        ending TEXT,
        sentence TEXT NOT NULL DEFAULT '',
        ended_at REAL,
        taken INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX entries_by_turn ON entries (state, priority DESC, id)",
    "CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE state = 'queued'",
    "CREATE INDEX entries_by_order_key ON entries (order_key, id) WHERE state = 'queued'",
    "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at REAL NOT NULL)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Statements that lead from version n to n + 1. Released ones are never changed; a new one is added at the end."""


class NotAnOutbox(Exception):
    """The file is a database of something else, or of a newer edgewise."""


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> None:
    """Bring a database to the newest version, all in one transaction. Raises `NotAnOutbox`."""
    if _version(connection) == len(migrations) and _application(connection) == APPLICATION_ID:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if _application(connection) != APPLICATION_ID and _has_tables(connection):
            raise NotAnOutbox("it is another application's database; name another file in `policy.offline.outbox`")
        if version > len(migrations):
            raise NotAnOutbox(f"it has version {version}, written by a newer edgewise; update this one")
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _application(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None
