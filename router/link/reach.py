"""What is known of the way to one remote endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from ...backends import Backend
from ...core.failure import AttemptError, FailureKind, PathFault
from ...policies.facts import NotReady
from ..snapshot import JsonValue, flag, table
from .network import Way
from .round_trip import RoundTrip
from .status import EndpointStatus, Reachability

ASSUMED = 50
"""Per cent of confidence in what nothing speaks for or against."""

FRESH = 10.0
"""Seconds for which an answer stands for a way that is open."""

_SURE = 99
_FADES = 60.0
"""Seconds after which an answer says no more than the assumption."""

OF_THE_NETWORK = frozenset({PathFault.NO_ROUTE, PathFault.NO_NAME, PathFault.SILENT})
"""Faults that lie on this side or on the way. The others show a way that works up to the other machine."""

_CONFIDENCE = {
    PathFault.NO_ROUTE: 99,
    PathFault.NO_NAME: 85,
    PathFault.SILENT: 80,
    PathFault.REFUSED: 95,
    PathFault.HUNG: 85,
    PathFault.BROKEN: 70,
    PathFault.INTERCEPTED: 85,
}
_CONFIRMATION = 5
"""Per cent that each further probe with the same outcome adds."""


class Underway(Protocol):
    """A call on its way."""

    withdrawn: Callable[[AttemptError], None]
    """It will never be answered: fail now."""


class Reach:
    """The evidence about one endpoint, and the verdict. A fault stands until something answers, or the network changes.

    Backends that share the endpoint share what is known of it. ``clock`` is monotonic, in seconds.
    """

    def __init__(self, backends: Sequence[Backend], clock: Callable[[], float]) -> None:
        self.backends = tuple(backends)
        self.endpoint = backends[0].endpoint
        self.label = str(self.endpoint or backends[0].name)
        self.over_network = self.endpoint is None or not self.endpoint.local
        self.round_trip = RoundTrip()
        self.refusal: NotReady | None = None
        """Why no plan may count on it now."""
        self.judged_alone = False
        """Whether this verdict stands for itself, whatever the link's state is."""
        self.returned: list[Callable[[], None]] = []
        """Who hears that it answers again."""
        self.underway: set[Underway] = set()
        self.waiting_since = 0.0
        self.fault: PathFault | None = None
        self.confirmed_at = -math.inf
        self.heard_at = -math.inf
        self.alive_at = -math.inf
        self.proven = False
        """The service itself has answered before."""
        self.unproven = False
        """The way was lost and may be back: nothing has answered yet."""
        self.address = self.endpoint.host if self.endpoint is not None and self.endpoint.literal else None
        self.way: Way | None = None
        self._clock = clock
        self._confirmed = 0

    @property
    def reachability(self) -> Reachability:
        """The verdict."""
        if self.fault is not None:
            return Reachability.UNREACHABLE
        if self.unproven or self.age_of_life() == math.inf:
            return Reachability.UNKNOWN
        return Reachability.REACHABLE

    @property
    def fresh(self) -> bool:
        """It has answered of late, and nothing speaks against it."""
        return self.fault is None and not self.unproven and self.age_of_life() <= FRESH

    def begin(self, call: Underway) -> None:
        """A call starts."""
        if not self.underway:
            self.waiting_since = self._clock()
        self.underway.add(call)

    def end(self, call: Underway) -> None:
        """A call has ended."""
        self.underway.discard(call)

    def silent_for(self) -> float:
        """Seconds for which calls under way have had no sign of life from there."""
        return self._clock() - max(self.waiting_since, self.heard_at, self.alive_at)

    def age_of_life(self) -> float:
        """Seconds since anything came from there."""
        return self._clock() - max(self.heard_at, self.alive_at)

    def answered(self) -> bool:
        """The service itself answered. Returns whether that is news."""
        known = self.reachability is Reachability.REACHABLE
        self.heard_at = self._clock()
        self.proven = True
        if known:
            return False
        self._clear()
        for tell in self.returned:
            tell()
        return True

    def alive(self) -> None:
        """Its machine answered. That ends no fault: only the service itself does."""
        self.alive_at = self._clock()

    def lost(self, fault: PathFault) -> bool:
        """It cannot be reached. Returns whether that is news."""
        self.confirmed_at = self._clock()
        if self.fault is fault:
            self._confirmed += 1
            return False
        self.fault, self._confirmed, self.unproven = fault, 0, False
        return True

    def doubt(self, *, was_lost: bool) -> None:
        """The network has changed: what was known counts no more."""
        self._clear()
        self.heard_at = self.alive_at = -math.inf
        self.unproven = was_lost

    def fail_underway(self, fault: PathFault, sentence: str) -> None:
        """End the calls that wait for what cannot come."""
        for call in list(self.underway):
            call.withdrawn(AttemptError(FailureKind.UNREACHABLE, sentence, fault=fault))

    def confidence(self) -> int:
        """How sure the verdict is, in per cent."""
        if self.fault is not None:
            return min(_SURE, _CONFIDENCE[self.fault] + _CONFIRMATION * self._confirmed)
        age = self.age()
        if age is None or self.unproven:
            return ASSUMED
        return ASSUMED + round((_SURE - ASSUMED) * max(0.0, 1.0 - age / _FADES))

    def age(self) -> float | None:
        """Seconds since the last evidence; ``None`` without any."""
        at = max(self.heard_at, self.alive_at) if self.fault is None else self.confirmed_at
        return None if at == -math.inf else self._clock() - at

    def why(self) -> str:
        """The verdict's reason, for people."""
        if self.fault is not None:
            return told(self.fault, self.label)
        if self.unproven:
            return "a network is there again, and nothing has answered yet"
        if self.heard_at > -math.inf:
            return "it answered"
        return "its machine answered" if self.alive_at > -math.inf else "nothing was asked yet"

    def status(self) -> EndpointStatus:
        """What there is to show of it."""
        names = tuple(backend.name for backend in self.backends)
        return EndpointStatus(self.label, names, self.reachability, self.confidence(), self.age(), self.why())

    def snapshot(self) -> JsonValue:
        """What holds in any network: not whether it can be reached now."""
        return {"proven": self.proven, "round_trip": self.round_trip.snapshot()}

    def restore(self, value: JsonValue) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        stored = table(value)
        self.proven = flag(stored, "proven")
        self.round_trip.restore(stored.get("round_trip"))

    def _clear(self) -> None:
        self.fault, self.unproven, self._confirmed = None, False, 0


def told(fault: PathFault, label: str) -> str:
    """One sentence that says who is at fault."""
    return {
        PathFault.NO_ROUTE: f"this device has no network that leads to {label}",
        PathFault.NO_NAME: f"no name server tells where {label} is",
        PathFault.SILENT: f"nothing comes back from {label}",
        PathFault.REFUSED: f"the network works and {label} is down: its machine says that no service is there",
        PathFault.HUNG: f"the network works and {label} hangs: it takes connections and answers nothing",
        PathFault.BROKEN: f"the network works and {label} closes every connection",
        PathFault.INTERCEPTED: f"something else answers in the name of {label}: a captive portal, or wrong `tls`",
    }[fault]
