"""Why one attempt failed, and what that means for the request.

Adapters say *what* happened (`FailureKind`); the table here says what follows from it, for every
backend alike. How a protocol's own codes map to kinds is the adapter's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import EdgewiseError


class FailureKind(StrEnum):
    """What went wrong in one attempt."""

    UNREACHABLE = "unreachable"
    """No connection, or it broke."""
    OVERLOADED = "overloaded"
    """The backend is there and has no room now."""
    CONFLICT = "conflict"
    """The backend gave this attempt up in favour of another; a new one may pass."""
    TIMED_OUT = "timed_out"
    """No answer in the time the attempt had."""
    STALLED = "stalled"
    """A stream began and then fell silent for much longer than this backend ever pauses."""
    TRUNCATED = "truncated"
    """A stream ended without saying why it finished."""
    CRASHED = "crashed"
    """The engine's process died."""
    INTERNAL = "internal"
    """The backend failed by its own account, or broke the contract."""
    PROTOCOL = "protocol"
    """What answers there does not speak the configured protocol."""
    CREDENTIALS = "credentials"
    """The backend does not accept our credentials."""
    MODEL_UNAVAILABLE = "model_unavailable"
    """The backend does not have the model, or cannot load it."""
    UNKNOWN_MODEL = "unknown_model"
    """The request names a model that this backend does not have; it may have others, and another backend this one."""
    UNSUPPORTED = "unsupported"
    """The backend cannot do this kind of work."""
    NOT_PERMITTED = "not_permitted"
    """A wall forbade the attempt: at the last moment, or, newer than it, while it ran."""
    WRONG_PLACE = "wrong_place"
    """The backend is not where it should be, or does not prove that it is."""
    PLACE_UNKNOWN = "place_unknown"
    """The backend was not told where it is, so it cannot say whether the request may go there; others may."""
    CONTEXT_LENGTH = "context_length"
    """The request is too long for this model; a larger context may take it."""
    CONTENT_FILTER = "content_filter"
    """The provider refuses this content."""
    INVALID_REQUEST = "invalid_request"
    """The backend finds the request itself wrong."""
    PREEMPTED = "preempted"
    """Another attempt was preferred, or the request ended; the attempt was stopped by us."""


class PathFault(StrEnum):
    """Where the way to a service is broken, as far as a failure shows it: this device, the way, or the server."""

    NO_ROUTE = "no_route"
    """This device has no network that leads there."""
    NO_NAME = "no_name"
    """The service's name could not be looked up."""
    SILENT = "silent"
    """Nothing comes back, not even from its machine."""
    REFUSED = "refused"
    """Its machine answers that no service is there."""
    HUNG = "hung"
    """A connection stands, and the service says nothing."""
    BROKEN = "broken"
    """A connection that stood broke."""
    INTERCEPTED = "intercepted"
    """Something else answers in its name, such as a captive portal."""


class Quarantine(StrEnum):
    """What only a person can mend is left alone until a backend says that it may be mended, and said loudly."""

    TASK = "task"
    """The backend is left alone for this kind of work."""
    BACKEND = "backend"
    """The backend is left alone altogether."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """What follows from a kind of failure."""

    retry_here: bool
    """The same backend may be asked again, when nothing else is left."""
    next_backend: bool
    """Another backend may be asked. False ends the request."""
    counts_for_breaker: bool
    """It says something about the backend's health."""
    quarantine: Quarantine | None = None
    """The backend needs a person."""


DISPOSITIONS: dict[FailureKind, Disposition] = {
    FailureKind.UNREACHABLE: Disposition(True, True, True),
    FailureKind.OVERLOADED: Disposition(True, True, False),
    FailureKind.CONFLICT: Disposition(True, True, False),
    FailureKind.TIMED_OUT: Disposition(False, True, True),
    FailureKind.STALLED: Disposition(False, True, True),
    FailureKind.TRUNCATED: Disposition(False, True, True),
    # A request that crashed an engine never goes back to it.
    FailureKind.CRASHED: Disposition(False, True, True),
    FailureKind.INTERNAL: Disposition(False, True, True),
    # Not a quarantine: a captive portal answers in the server's name, and goes away.
    FailureKind.PROTOCOL: Disposition(False, True, True),
    FailureKind.CREDENTIALS: Disposition(False, True, False, Quarantine.BACKEND),
    FailureKind.MODEL_UNAVAILABLE: Disposition(False, True, False, Quarantine.TASK),
    FailureKind.UNKNOWN_MODEL: Disposition(False, True, False),
    FailureKind.UNSUPPORTED: Disposition(False, True, False, Quarantine.TASK),
    FailureKind.NOT_PERMITTED: Disposition(False, True, False),
    # What the configuration says of its place is not so.
    FailureKind.WRONG_PLACE: Disposition(False, True, False, Quarantine.BACKEND),
    # No quarantine: what may go anywhere is answered there as before.
    FailureKind.PLACE_UNKNOWN: Disposition(False, True, False),
    FailureKind.CONTEXT_LENGTH: Disposition(False, True, False),
    FailureKind.CONTENT_FILTER: Disposition(False, False, False),
    # What one backend finds invalid another may take; the request is invalid where all agree.
    FailureKind.INVALID_REQUEST: Disposition(False, True, False),
    FailureKind.PREEMPTED: Disposition(False, True, False),
}


class AttemptError(EdgewiseError):
    """One attempt at one backend failed. What adapters raise, and all that they raise.

    ``sentence`` says what happened and what to do, for people. It never quotes the request, the
    answer or a server's own error text. ``retry_after`` is the server's pushback in seconds: when
    it wants to be asked again; ``None`` when it did not say. ``fault``: where the way there is broken, if it is known.
    """

    def __init__(
        self, kind: FailureKind, sentence: str, *, retry_after: float | None = None, fault: PathFault | None = None
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.retry_after = retry_after
        self.fault = fault

    @property
    def disposition(self) -> Disposition:
        """What follows from this failure."""
        return DISPOSITIONS[self.kind]
