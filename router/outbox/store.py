"""The entries of an outbox: every change is one transaction, on the disk before the method returns.

Methods block. ``now`` is wall-clock time in seconds since 1970.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...core.errors import OutboxLocked
from ...policies.settings import EncryptionSettings
from .database import Database
from .entry import KEEPS_CONTENT, PRIORITIES, RANKS, Ending, Entry, NewEntry, Receipt, State
from .keys import load_keys
from .leases import Lease
from .quota import ROOM_MADE, Quota, victims
from .schema import LAST_ID, SOUND
from .seal import SEALED, bring_under, proof_of
from .sealing import Sealing, Stored, Unopened

_COLUMNS = (
    "receipt, idempotency_key, state, priority, order_key, submitted_at, expires_at, not_before, sends, strikes, "
    "waits, labels, content, answer, bytes, ending, sentence, ended_at, taken"
)
_SELECT = f"SELECT id, {SOUND} AS sound, {_COLUMNS} FROM entries"
# Without statistics SQLite would look at all that waits.
_OUTLIVED = "SELECT id FROM entries INDEXED BY entries_by_expiry WHERE state = 'queued' AND expires_at <= ?"
_NEXT_ID = f"(SELECT COALESCE(MAX(id), 0) + 1 FROM entries WHERE id BETWEEN 0 AND {LAST_ID - 1})"
_EXPIRED = "its time to live passed before it could be answered"
_ALTERED = "what is stored of it was altered or damaged, and cannot be read"


class _Altered(Exception):
    """A row is not one that this store has written."""


class Store:
    """Queued requests in one file, for any number of threads and processes at once."""

    def __init__(self, path: Path, encryption: EncryptionSettings | None = None) -> None:
        self.database = Database(path, self._unlock)
        self._encryption = encryption
        self._sealing = Sealing()
        self._proof: Stored | None = None

    def close(self) -> None:
        """Free the file; the next use opens it again."""
        self.database.close()

    def add(self, new: NewEntry, quota: Quota) -> Receipt:
        """Queue a request; returns its receipt, or that of the entry that has its idempotency key already.

        Raises `OutboxFull`.
        """
        self.database.create()
        with self._writing() as connection:
            same = connection.execute("SELECT receipt FROM entries WHERE idempotency_key = ?", (new.idempotency_key,))
            if (known := same.fetchone()) is not None:
                return Receipt(known[0])
            self._expire(connection, new.submitted_at)
            for victim in victims(connection, quota, new):
                self._bury(connection, "id", victim, Ending.DROPPED, ROOM_MADE, new.submitted_at)
            connection.execute(
                "INSERT INTO entries (id, receipt, idempotency_key, priority, order_key, submitted_at, expires_at, "
                f"labels, content, bytes, state) VALUES ({_NEXT_ID}, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued')",
                (
                    new.receipt,
                    new.idempotency_key,
                    RANKS[new.priority],
                    new.order_key,
                    new.submitted_at,
                    new.expires_at,
                    self._sealing.seal(new.labels, new.receipt, "labels"),
                    self._sealing.seal(new.content, new.receipt, "content"),
                    new.size,
                ),
            )
        return new.receipt

    def find(self, receipt: str, now: float) -> Entry | None:
        """The entry of a receipt, as it stands now."""
        if not _is_text(receipt):
            return None
        found = self._find(receipt, now)
        if found is not None and found.state is State.QUEUED and found.expires_at <= now:
            self.expire(now)
            return self._find(receipt, now)
        return found

    def all(self, now: float, states: Collection[State] = tuple(State)) -> list[Entry]:
        """The entries in these states, in the order of their submission."""
        self.expire(now)
        where = "WHERE state IN (SELECT value FROM json_each(?)) ORDER BY id"
        return self._read(where, (json.dumps(list(states)),), now)

    def count_queued(self) -> int:
        """How many requests wait."""
        with self.database.reading() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM entries WHERE state = 'queued'").fetchone()[0])

    def due(self, now: float, longest_wait: float, passing_over: Collection[str] = (), most: int = 64) -> list[Entry]:
        """Whose turn it is: the highest priority first, then the oldest; within an order key none before an older one.

        A wait longer than ``longest_wait`` is from before the clock was set back, and is over.
        """
        where = """
            AS entry WHERE state = 'queued' AND expires_at > ? AND (not_before <= ? OR not_before > ?)
            AND receipt NOT IN (SELECT value FROM json_each(?))
            AND NOT EXISTS (
                SELECT 1 FROM entries AS older
                WHERE older.state = 'queued' AND older.order_key = entry.order_key AND older.id < entry.id
                AND older.expires_at > ?
            )
            ORDER BY priority DESC, id LIMIT ?
        """
        return self._read(where, (now, now, now + longest_wait, json.dumps(list(passing_over)), now, most), now)

    def begin_send(self, receipt: Receipt, lease: Lease, now: float) -> bool:
        """Note that the content is about to leave; false where it may not: the lease is lost, or the entry has ended.

        The strike stands until the outcome takes it back, so that one that kills the process is counted too.
        """
        with self._writing() as connection:
            if not lease.held(connection, now):
                return False
            changed = connection.execute(
                "UPDATE entries SET sends = sends + 1, strikes = strikes + 1 "
                "WHERE receipt = ? AND state = 'queued' AND expires_at > ?",
                (receipt, now),
            )
            return changed.rowcount == 1

    def take_back(self, receipts: Collection[Receipt]) -> None:
        """Sends that were stopped by us count as none."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET strikes = MAX(0, strikes - 1) "
                "WHERE state = 'queued' AND receipt IN (SELECT value FROM json_each(?))",
                (json.dumps(list(receipts)),),
            )

    def finish(self, receipt: Receipt, answer: str, now: float) -> bool:
        """Store the answer and be done with the entry, in one step; false where it has ended already."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE entries SET state = 'answered', answer = ?, content = NULL, bytes = ?, ended_at = ?, "
                "sentence = '' WHERE receipt = ? AND state = 'queued'",
                (self._sealing.seal(answer, receipt, "answer"), len(answer.encode()), now, receipt),
            )
            self.database.content_erased()
            return changed.rowcount == 1

    def postpone(self, receipt: Receipt, until: float, sentence: str, *, broken: bool) -> None:
        """Let a sent entry wait for its next turn. ``broken`` lets the strike of this send stand."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET not_before = ?, waits = waits + 1, sentence = ?, strikes = MAX(0, strikes - ?) "
                "WHERE receipt = ? AND state = 'queued'",
                (until, sentence, 0 if broken else 1, receipt),
            )

    def explain(self, receipt: Receipt, sentence: str) -> None:
        """Note why an entry waits that could not be sent at all."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE entries SET sentence = ? WHERE receipt = ? AND state = 'queued'", (sentence, receipt)
            )

    def bury(self, receipt: str, ending: Ending, sentence: str, now: float) -> bool:
        """Make a queued entry a dead letter; false where it has ended already."""
        if not _is_text(receipt):
            return False
        with self._writing() as connection:
            return self._bury(connection, "receipt", receipt, ending, sentence, now)

    def drop(self, receipt: str, now: float) -> bool:
        """Erase all content of an entry, whatever its state. False where the receipt is not known."""
        with self._writing() as connection:
            self._bury(connection, "receipt", receipt, Ending.DROPPED, "it was dropped by hand", now)
            changed = connection.execute(
                "UPDATE entries SET content = NULL, answer = NULL, bytes = 0, taken = 1, ending = 'dropped', "
                "sentence = 'it was dropped by hand', state = 'dead' WHERE receipt = ?",
                (receipt,),
            )
            self.database.content_erased()
            return changed.rowcount == 1

    def revive(self, receipt: str, expires_at: float) -> bool:
        """Queue a dead letter again, or end a queued one's wait; false where its content is gone."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE entries SET state = 'queued', not_before = 0, waits = 0, strikes = 0, ending = NULL, "
                "sentence = '', ended_at = NULL, taken = 0, "
                "expires_at = CASE state WHEN 'dead' THEN ? ELSE expires_at END "
                "WHERE receipt = ? AND state != 'answered' AND content IS NOT NULL",
                (expires_at, receipt),
            )
            return changed.rowcount == 1

    def wake(self) -> None:
        """End every wait: the link is back, or a person asks for it."""
        with self._writing() as connection:
            connection.execute("UPDATE entries SET not_before = 0, waits = 0 WHERE state = 'queued' AND not_before > 0")

    def take(self, receipt: Receipt) -> None:
        """The application has dealt with the result."""
        with self._writing() as connection:
            connection.execute("UPDATE entries SET taken = 1 WHERE receipt = ?", (receipt,))

    def next_result(self, now: float, after: Collection[str] = ()) -> Entry | None:
        """The oldest result that no application has dealt with."""
        self.expire(now)
        where = (
            "WHERE state != 'queued' AND NOT taken "
            "AND receipt NOT IN (SELECT value FROM json_each(?)) ORDER BY ended_at, id LIMIT 1"
        )
        return next(iter(self._read(where, (json.dumps(list(after)),), now)), None)

    def expire(self, now: float) -> None:
        """Make dead letters of what has outlived its time."""
        with self.database.reading() as connection:
            if connection.execute(f"{_OUTLIVED} LIMIT 1", (now,)).fetchone() is None:
                return
        with self._writing() as connection:
            self._expire(connection, now)

    def forget(self, ended_before: float) -> None:
        """Remove results and dead letters from before this time, with their receipts."""
        with self._writing() as connection:
            query = "DELETE FROM entries WHERE state != 'queued' AND ended_at <= ?"
            if connection.execute(query, (ended_before,)).rowcount:
                self.database.content_erased()

    def condemn_altered(self, now: float) -> None:
        """Make dead letters of all entries that are not as this store could have written them."""
        with self.database.reading() as connection:
            altered = [row[0] for row in connection.execute(f"SELECT id FROM entries WHERE NOT ({SOUND})")]
        self._condemn(altered, now)

    def _find(self, receipt: str, now: float) -> Entry | None:
        return next(iter(self._read("WHERE receipt = ?", (receipt,), now)), None)

    def _read(self, where: str, values: Sequence[object], now: float) -> list[Entry]:
        """The entries that a query finds. What was altered becomes a dead letter, and is read again as that."""
        query = f"{_SELECT} {where}"
        while True:
            entries: list[Entry] = []
            altered: list[int] = []
            with self.database.reading() as connection:
                for row in connection.execute(query, values):
                    try:
                        entries.append(self._entry(row))
                    except _Altered:
                        altered.append(row["id"])
            if not altered:
                return entries
            self._condemn(altered, now)

    def _condemn(self, altered: Sequence[int], now: float) -> None:
        """Put a dead letter in place of each of these entries. Nothing of it is kept but its names."""
        if not altered:
            return
        with self._writing() as connection:
            for entry in altered:
                row = connection.execute(f"{_SELECT} WHERE id = ?", (entry,)).fetchone()
                if row is None or self._reads(row):  # another process was faster, or has changed the key
                    continue
                names = row["receipt"], row["idempotency_key"]
                receipt, key = (name if _is_name(name) else secrets.token_hex(16) for name in names)
                connection.execute("DELETE FROM entries WHERE id = ?", (entry,))
                connection.execute(
                    "INSERT INTO entries (id, receipt, idempotency_key, state, priority, submitted_at, expires_at, "
                    "labels, bytes, ending, sentence, ended_at) "
                    f"VALUES ({_NEXT_ID}, ?, ?, 'dead', 1, ?, ?, ?, 0, ?, ?, ?)",
                    (
                        receipt,
                        key,
                        now,
                        now,
                        self._sealing.seal("{}", receipt, "labels"),
                        Ending.UNREADABLE,
                        _ALTERED,
                        now,
                    ),
                )
            self.database.content_erased()

    def _expire(self, connection: sqlite3.Connection, now: float) -> None:
        for (entry,) in connection.execute(_OUTLIVED, (now,)).fetchall():
            self._bury(connection, "id", entry, Ending.EXPIRED, _EXPIRED, now)

    def _bury(
        self, connection: sqlite3.Connection, by: str, name: str | int, ending: Ending, sentence: str, now: float
    ) -> bool:
        """End the queued entry that has this id or receipt. What it waited for is kept with what it died of."""
        kept = ending in KEEPS_CONTENT
        changed = connection.execute(
            "UPDATE entries SET state = 'dead', ending = ?, ended_at = ?, "
            "sentence = CASE WHEN ? AND sentence != '' THEN ? || '; it waited because: ' || sentence ELSE ? END, "
            "content = CASE ? WHEN 1 THEN content END, bytes = CASE ? WHEN 1 THEN bytes ELSE 0 END "
            f"WHERE {by} = ? AND state = 'queued'",
            (ending, now, ending is Ending.EXPIRED, sentence, sentence, kept, kept, name),
        )
        if not kept:
            self.database.content_erased()
        return changed.rowcount == 1

    def _reads(self, row: sqlite3.Row) -> bool:
        try:
            self._entry(row)
        except _Altered:
            return False
        return True

    def _entry(self, row: sqlite3.Row) -> Entry:
        """What a row says. Raises `_Altered`."""
        if not row["sound"]:
            raise _Altered
        values = {name: row[name] for name in _COLUMNS.split(", ")}
        try:
            for column in SEALED:
                if values[column] is not None:
                    values[column] = self._sealing.open(values[column], values["receipt"], column)
            values["ending"] = None if values["ending"] is None else Ending(values["ending"])
        except (Unopened, ValueError):
            raise _Altered from None
        if not all(_is_text(value) for value in values.values() if isinstance(value, str)):
            raise _Altered
        values["state"] = State(values["state"])
        values["priority"] = PRIORITIES[values["priority"]]
        values["taken"] = bool(values["taken"])
        return Entry(**values)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, in a file that is still sealed as it was when this process opened it."""
        with self.database.reading() as connection:
            changed = proof_of(connection) != self._proof
        if changed:
            self.database.close()  # to read the keys anew
        with self.database.writing() as connection:
            if proof_of(connection) != self._proof:
                raise OutboxLocked("another process is changing the outbox's key; try again")
            yield connection

    def _unlock(self, connection: sqlite3.Connection) -> None:
        """Read the keys, and have everything that is kept sealed by the first. Raises `OutboxLocked`."""
        self._sealing = Sealing() if self._encryption is None else Sealing(load_keys(self._encryption))
        bring_under(connection, self._sealing)
        self._proof = proof_of(connection)


def _is_name(value: object) -> bool:
    """Whether a receipt or a key is still one."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != ""


def _is_text(value: object) -> bool:
    """Whether it is text that can be written as such: damage inside one shows as lone surrogates."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False
