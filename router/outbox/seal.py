"""Which key a file is sealed by, and how everything in it comes under the first one.

A file that is encrypted holds a proof: a constant, sealed. Whoever opens it has the key, and then a value that does not
open was altered. Where the proof itself was, any value that opens is one as well. So a wrong key opens nothing, and is
told apart from damage, which leaves something.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from ...core.errors import OutboxLocked
from .sealing import Sealing, Stored, Unopened

SEALED = ("labels", "content", "answer")
"""The columns that are encrypted."""

_PROVES = "this key"
_PLACE = ("", "seal")


def proof_of(connection: sqlite3.Connection) -> Stored | None:
    """What proves the key that everything is sealed by; ``None`` where nothing is."""
    row = connection.execute("SELECT proof FROM seal").fetchone()
    return None if row is None else row[0]


def bring_under(connection: sqlite3.Connection, sealing: Sealing) -> None:
    """Have everything sealed by the first key, or nothing where there is none, in one transaction.

    Raises `OutboxLocked` where it is sealed by a key that is not there, and has then changed nothing.
    """
    if _is_under(connection, sealing):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_under(connection, sealing):
            _require_a_key_that_fits(connection, sealing)
            _seal_anew(connection, sealing)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _is_under(connection: sqlite3.Connection, sealing: Sealing) -> bool:
    proof = proof_of(connection)
    if not sealing.seals:
        return not _is_sealed(connection)
    return proof is not None and _opens(sealing.first, proof, *_PLACE)


def _require_a_key_that_fits(connection: sqlite3.Connection, sealing: Sealing) -> None:
    if not _is_sealed(connection):
        return
    if not sealing.seals:
        raise OutboxLocked("the outbox is encrypted; say in `policy.offline.encryption` where its key is")
    proof = proof_of(connection)
    if proof is not None and _opens(sealing, proof, *_PLACE):
        return
    if not _holds_what_opens(connection, sealing):
        raise OutboxLocked(
            "the outbox is encrypted with another key; add that one below the first, "
            "or move the file away to begin a new one"
        )


def _seal_anew(connection: sqlite3.Connection, sealing: Sealing) -> None:
    """What does not open stays as it is, and is found to be altered when it is read."""
    was_sealed = proof_of(connection) is not None or _holds_what_opens(connection, sealing)
    connection.execute("DELETE FROM seal")
    if sealing.seals:
        connection.execute("INSERT INTO seal VALUES (?)", (sealing.seal(_PROVES, *_PLACE),))
    for entry, receipt, column, stored in list(_values(connection)):
        try:
            text = stored if isinstance(stored, str) and not was_sealed else sealing.open(stored, receipt, column)
            sealed = sealing.seal(text, receipt, column)
        except (Unopened, UnicodeError):
            continue
        connection.execute(f"UPDATE entries SET {column} = ? WHERE id = ?", (sealed, entry))


def _values(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str, Stored]]:
    """Every value that may be sealed: its entry, its receipt, its column, and itself."""
    for column in SEALED:
        query = f"SELECT id, receipt, '{column}', {column} FROM entries WHERE {column} IS NOT NULL"
        yield from connection.execute(query)


def _is_sealed(connection: sqlite3.Connection) -> bool:
    """Whether the file is encrypted. Where its proof is gone, what most of its values are decides."""
    if proof_of(connection) is not None:
        return True
    count = "+".join(f"(typeof({column}) = 'blob') - (typeof({column}) = 'text')" for column in SEALED)
    more_sealed: int = connection.execute(f"SELECT total({count}) FROM entries").fetchone()[0]
    return more_sealed > 0


def _holds_what_opens(connection: sqlite3.Connection, sealing: Sealing) -> bool:
    """Whether any value in it was sealed by one of the keys."""
    return any(
        isinstance(stored, bytes) and _opens(sealing, stored, receipt, column)
        for _, receipt, column, stored in _values(connection)
    )


def _opens(sealing: Sealing, stored: Stored, receipt: str, column: str) -> bool:
    try:
        sealing.open(stored, receipt, column)
    except Unopened:
        return False
    return True
