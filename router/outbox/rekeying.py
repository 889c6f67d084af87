"""Brings everything in a file under the first key: what was not encrypted before, and what an older key sealed."""

from __future__ import annotations

import sqlite3

from .sealing import UNREADABLE, Sealing, Stored

SEALED = ("labels", "content", "answer")
"""The columns that are encrypted."""


def seal_anew(connection: sqlite3.Connection, sealing: Sealing) -> None:
    """Seal all values by the first key, in one transaction. Raises `OutboxLocked`, and has then changed nothing.

    Without a key, nothing may be sealed.
    """
    if not any(_others(connection, sealing, column, most=1) for column in SEALED):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for column in SEALED:
            for entry, receipt, stored in _others(connection, sealing, column):
                text = sealing.open(stored, receipt, column)
                if text != UNREADABLE:
                    values = (sealing.seal(text, receipt, column), entry)
                    connection.execute(f"UPDATE entries SET {column} = ? WHERE id = ?", values)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _others(
    connection: sqlite3.Connection, sealing: Sealing, column: str, most: int = -1
) -> list[tuple[int, str, Stored]]:
    """Entries whose value is not as the first key, or no key, would leave it."""
    is_other = f"typeof({column}) = 'blob'"
    if sealing.mark:
        is_other = f"(typeof({column}) = 'text' OR substr({column}, 1, {len(sealing.mark)}) != :mark)"
    query = f"SELECT id, receipt, {column} FROM entries WHERE {column} IS NOT NULL AND {is_other} LIMIT :most"
    return [tuple(row) for row in connection.execute(query, {"most": most, "mark": sealing.mark})]
