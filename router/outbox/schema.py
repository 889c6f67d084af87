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

_YEARS_1970_TO_9999 = "BETWEEN 0 AND 253402300799"


def _is_name(column: str) -> str:
    """Printable ASCII. A zero byte ends a text for SQLite, and not for us."""
    is_ascii = f"length(CAST({column} AS BLOB)) = length({column})"
    return f"typeof({column}) = 'text' AND {column} != '' AND {is_ascii} AND {column} NOT GLOB '*[^ -~]*'"


def _is_time(column: str) -> str:
    return f"typeof({column}) IN ('real', 'integer') AND {column} {_YEARS_1970_TO_9999}"


def _is_count(column: str, most: int) -> str:
    return f"typeof({column}) = 'integer' AND {column} BETWEEN 0 AND {most}"


def _is_sealable(column: str) -> str:
    return f"typeof({column}) IN ('text', 'blob')"


LAST_ID = 10**15
"""No file ever holds so many. SQLite gives random numbers where somebody has put the last of its own."""

_SOUND_2 = (
    f"id BETWEEN 1 AND {LAST_ID}",
    _is_name("receipt"),
    _is_name("idempotency_key"),
    _is_count("priority", 2),
    f"order_key IS NULL OR {_is_name('order_key')}",
    _is_time("submitted_at"),
    _is_time("expires_at"),
    _is_time("not_before"),
    _is_count("sends", 10**9),
    _is_count("strikes", 10**9),
    _is_count("waits", 10**9),
    _is_count("taken", 1),
    _is_count("bytes", 10**12),
    _is_sealable("labels"),
    "typeof(sentence) = 'text'",
    "typeof(state) = 'text' AND CASE state "
    f"WHEN 'queued' THEN {_is_sealable('content')} AND answer IS NULL AND ending IS NULL AND ended_at IS NULL "
    f"WHEN 'answered' THEN {_is_sealable('answer')} AND content IS NULL AND ending IS NULL AND {_is_time('ended_at')} "
    f"WHEN 'dead' THEN typeof(ending) = 'text' AND answer IS NULL AND {_is_time('ended_at')} "
    "AND typeof(content) IN ('text', 'blob', 'null') ELSE 0 END",
)

SOUND = " AND ".join(f"({check})" for check in _SOUND_2)
"""Whether an entry is one that could have been written by us, as SQL. Whatever is read is asked this, too."""

# Types are said by checks and not by columns: SQLite would convert what does not fit, and its check of a whole file
# would condemn all entries for one. Checks of one entry are ours to make. What is large stands last, so that nothing
# else has to be read past it.
_SECOND = (
    f"""
    CREATE TABLE checked_entries (
        id INTEGER PRIMARY KEY,
        receipt UNIQUE, idempotency_key UNIQUE,
        state, priority, order_key, submitted_at, expires_at, not_before DEFAULT 0.0,
        sends DEFAULT 0, strikes DEFAULT 0, waits DEFAULT 0, bytes, ending, sentence DEFAULT '', ended_at,
        taken DEFAULT 0, labels, content, answer,
        {", ".join(f"CHECK ({check})" for check in _SOUND_2)}
    )
    """,
    # A sealed value began with a byte for the format and eight for its key's name.
    """
    INSERT INTO checked_entries SELECT id, receipt, idempotency_key, state, priority, order_key, submitted_at,
        expires_at, not_before, sends, strikes, waits, bytes, ending, sentence, ended_at, taken,
        CASE typeof(labels) WHEN 'blob' THEN substr(labels, 10) ELSE labels END,
        CASE typeof(content) WHEN 'blob' THEN substr(content, 10) ELSE content END,
        CASE typeof(answer) WHEN 'blob' THEN substr(answer, 10) ELSE answer END
    FROM entries
    """,
    "CREATE TABLE seal (proof)",
    # By a key that was not proven, where nothing but sealed values is there.
    "INSERT INTO seal SELECT x'' WHERE EXISTS (SELECT 1 FROM entries) "
    "AND NOT EXISTS (SELECT 1 FROM entries WHERE typeof(labels) != 'blob')",
    "DROP TABLE entries",
    "ALTER TABLE checked_entries RENAME TO entries",
    *_FIRST[1:4],
    # So that what is held is added up without reading past anybody's content.
    "CREATE INDEX entries_by_size ON entries (state, bytes)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
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
