"""What an outbox holds: queued requests, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from ...core.request import Priority

Receipt = NewType("Receipt", str)
"""What `submit` returns: the name of a queued request, random. Keep it as text wherever you like."""

RANKS = {Priority.LOW: 0, Priority.NORMAL: 1, Priority.HIGH: 2}
PRIORITIES = {rank: priority for priority, rank in RANKS.items()}


class State(StrEnum):
    """Where a queued request stands."""

    QUEUED = "queued"
    ANSWERED = "answered"
    DEAD = "dead"
    """It ended without an answer; it is kept as a dead letter, with the reason."""


class Ending(StrEnum):
    """Why a request became a dead letter."""

    EXPIRED = "expired"
    """Its time to live passed."""
    DROPPED = "dropped"
    """The outbox was full and had to make room, or a person dropped it."""
    CANCELLED = "cancelled"
    """The application cancelled it."""
    POISON = "poison"
    """It was sent as often as is allowed, and each time something broke."""
    REFUSED = "refused"
    """A backend refuses this content, and would again."""
    UNREADABLE = "unreadable"
    """What is stored of it was altered or damaged."""


KEEPS_CONTENT = frozenset({Ending.POISON, Ending.REFUSED})
"""Dead letters that can be tried again, because their content is still there."""


_LATEST = 253_370_764_800.0
"""9999-01-01 in seconds since 1970: no calendar that could show a later time to people goes further."""


def expiry(now: float, lifetime: float) -> float:
    """When what is queued now dies of age. In seconds, since 1970 and for so long."""
    return min(now + lifetime, _LATEST)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A request to queue. Times are seconds of wall-clock time since 1970; ``content`` and ``labels`` are JSON."""

    receipt: Receipt
    idempotency_key: str
    labels: str
    content: str = field(repr=False)
    submitted_at: float
    expires_at: float
    priority: Priority = Priority.NORMAL
    order_key: str | None = None

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.content.encode())


@dataclass(frozen=True, slots=True)
class Entry:
    """A queued request as stored. Times are seconds of wall-clock time since 1970.

    ``content`` and ``answer`` are ``None`` where there is none or it was erased. ``bytes`` is what both take.
    ``sends`` counts attempts to send it; ``strikes`` those after which something broke, or nobody knows.
    ``sentence`` says why it waits or how it ended.
    """

    receipt: Receipt
    idempotency_key: str = field(repr=False)
    state: State
    priority: Priority
    order_key: str | None
    submitted_at: float
    expires_at: float
    not_before: float
    sends: int
    strikes: int
    waits: int
    labels: str
    content: str | None = field(repr=False)
    answer: str | None = field(repr=False)
    bytes: int
    ending: Ending | None
    sentence: str
    ended_at: float | None
    taken: bool
