"""How much an outbox holds, and what gives way when it is full."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ...core.errors import OutboxFull
from ...policies.settings import WhenFull
from .entry import RANKS, NewEntry

ROOM_MADE = "the outbox was full, and a newer request took its place"
"""What a dead letter says that gave way."""

_SIZE = "CASE typeof(bytes) WHEN 'integer' THEN bytes ELSE 0 END"  # an entry that was altered is not known as such yet


@dataclass(frozen=True, slots=True)
class Quota:
    """``entries`` counts waiting requests; ``bytes`` their content, and all else that is still kept."""

    entries: int
    bytes: int
    when_full: WhenFull = WhenFull.REJECT


def victims(connection: sqlite3.Connection, quota: Quota, new: NewEntry) -> list[int]:
    """The entries that must give way to ``new``; none where there is room. Raises `OutboxFull`."""
    query = f"SELECT COUNT(*) FILTER (WHERE state = 'queued'), CAST(TOTAL({_SIZE}) AS INTEGER) FROM entries"
    waiting, held = connection.execute(query).fetchone()
    surplus = waiting + 1 - quota.entries
    surplus_bytes = held + new.size - quota.bytes
    if surplus <= 0 and surplus_bytes <= 0:
        return []
    found: list[int] = []
    for entry, size in _candidates(connection, quota, new):
        found.append(entry)
        surplus -= 1
        surplus_bytes -= size
        if surplus <= 0 and surplus_bytes <= 0:
            return found
    raise OutboxFull(
        f"the outbox is full: {waiting} of {quota.entries} requests, {held} of {quota.bytes} bytes; "
        "send what waits, or raise `policy.offline.max_entries` or `max_bytes`"
    )


def _candidates(connection: sqlite3.Connection, quota: Quota, new: NewEntry) -> list[tuple[int, int]]:
    if quota.when_full is WhenFull.REJECT:
        return []
    lowest_first = quota.when_full is WhenFull.DROP_LOWEST
    turn = "priority, id" if lowest_first else "id"
    highest = RANKS[new.priority] if lowest_first else max(RANKS.values())
    query = f"SELECT id, {_SIZE} FROM entries WHERE state = 'queued' AND priority <= ? ORDER BY {turn}"
    return [(entry, size) for entry, size in connection.execute(query, (highest,))]
