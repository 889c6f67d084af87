"""What a send that got no answer means for the entry: it waits, it waits with a strike, or it is dead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ...core.errors import EdgewiseError, InvalidRequest, RequestError
from ...core.failure import FailureKind

_FINAL = frozenset({FailureKind.CONTENT_FILTER, FailureKind.INVALID_REQUEST})
"""The backend's word on this very content."""

_SUSPECT = frozenset({FailureKind.CRASHED, FailureKind.INTERNAL, FailureKind.PROTOCOL, FailureKind.TRUNCATED})
"""What this very content may have caused. All other failures are the world's, and only the time to live ends those."""


class Consequence(Enum):
    """What becomes of the entry."""

    WAITS = auto()
    STRUCK = auto()
    DEAD = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequence, and a sentence for people."""

    consequence: Consequence
    sentence: str


def judge(error: EdgewiseError) -> Verdict:
    """What follows from the error of a `generate`."""
    attempts = error.decision.attempts if isinstance(error, RequestError | InvalidRequest) and error.decision else []
    kinds = {attempt.failure for attempt in attempts}
    if kinds & _FINAL:
        return Verdict(Consequence.DEAD, str(error))
    if kinds & _SUSPECT:
        return Verdict(Consequence.STRUCK, str(error))
    return Verdict(Consequence.WAITS, str(error))
