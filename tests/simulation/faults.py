"""The catalogue of what can go wrong in one call to a simulated backend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from edgewise.core.failure import FailureKind


class Manner(Enum):
    """How a fault shows itself."""

    RAISED = auto()
    """The call fails with `Fault.kind`."""
    SILENT = auto()
    """Nothing comes any more."""
    SLOW_DRIP = auto()
    """Each further word takes `Fault.pause` seconds."""
    DELAYED = auto()
    """One wait of `Fault.pause` seconds, and it goes on as before."""
    CUT = auto()
    """The stream ends as if it were whole, without its finish."""
    CRASHED = auto()
    """The engine dies: every call at the backend fails, and it loads again for `Fault.pause` seconds."""
    FOREIGN = auto()
    """The adapter breaks its contract: another exception, whose text quotes the request."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the catalogue.

    ``early``: it strikes before the first word only. ``lasting``: the backend does it again at every call. ``pause``
    and ``retry_after`` are seconds.
    """

    name: str
    manner: Manner
    kind: FailureKind = FailureKind.INTERNAL
    early: bool = False
    lasting: bool = False
    pause: float = 0.0
    retry_after: float | None = None


def _raised(name: str, kind: FailureKind, *, early: bool = False, retry_after: float | None = None) -> Fault:
    return Fault(name, Manner.RAISED, kind, early=early, retry_after=retry_after)


LOST = _raised("connection lost", FailureKind.UNREACHABLE)
SILENT = Fault("silence", Manner.SILENT)
CUT = Fault("cut", Manner.CUT)
OVERLOADED = _raised("overloaded", FailureKind.OVERLOADED, early=True)

PASSING = (
    LOST,
    _raised("connection refused", FailureKind.UNREACHABLE, early=True),
    SILENT,
    Fault("slow drip", Manner.SLOW_DRIP, pause=1.5),
    Fault("slower drip", Manner.SLOW_DRIP, pause=15.0),
    Fault("a short stall", Manner.DELAYED, pause=0.4),
    Fault("a long stall", Manner.DELAYED, pause=8.0),
    CUT,
    Fault("crash", Manner.CRASHED, FailureKind.CRASHED, pause=2.0),
    Fault("contract broken", Manner.FOREIGN),
    OVERLOADED,
    _raised("overloaded, come back soon", FailureKind.OVERLOADED, early=True, retry_after=0.2),
    _raised("overloaded, come back late", FailureKind.OVERLOADED, early=True, retry_after=30.0),
    _raised("overloaded, stay away", FailureKind.OVERLOADED, early=True, retry_after=float("inf")),
    _raised("reset", FailureKind.CONFLICT),
    _raised("its own deadline", FailureKind.TIMED_OUT),
    _raised("internal error", FailureKind.INTERNAL),
    _raised("captive portal", FailureKind.PROTOCOL, early=True),
    _raised("context too short", FailureKind.CONTEXT_LENGTH, early=True),
    _raised("unknown model", FailureKind.UNKNOWN_MODEL, early=True),
    _raised("content filter", FailureKind.CONTENT_FILTER),
    _raised("request found invalid", FailureKind.INVALID_REQUEST, early=True),
)

LASTING = tuple(
    Fault(name, Manner.RAISED, kind, early=True, lasting=True)
    for name, kind in (
        ("wrong credentials", FailureKind.CREDENTIALS),
        ("model missing", FailureKind.MODEL_UNAVAILABLE),
        ("not implemented", FailureKind.UNSUPPORTED),
    )
)
