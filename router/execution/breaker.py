"""Whether a backend that failed is left alone for now."""

from __future__ import annotations

import random
from collections.abc import Callable

from ...core.decision import RefusalCode
from ...core.duration import format_duration
from ...core.failure import AttemptError, FailureKind
from ...policies.facts import NotReady
from ..snapshot import JsonValue, Unreadable, number, table, text

FAILURES_TO_OPEN = 3
"""So many failures in a row open the breaker. Rates say nothing with one to three backends and few requests."""
FIRST_PAUSE = 1.0
PAUSE_GROWTH = 1.5
LONGEST_PAUSE = 5.0
"""Short, so that a backend that is back is used again soon; a probe risks one attempt, not a request."""
_MOST_JITTER = 1.2


class Breaker:
    """One backend's breaker.

    Closed, it admits everything. After `FAILURES_TO_OPEN` failures in a row it is open for a pause that grows, ± 20 %;
    then it admits one attempt at a time, and the first success closes it.
    """

    def __init__(self, clock: Callable[[], float], random_source: random.Random) -> None:
        self._clock = clock
        self._random = random_source
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._probing = False
        self._last_failure = ""

    def refusal(self) -> NotReady | None:
        """Why no attempt is admitted now, or ``None``. Changes nothing."""
        if self._failures < FAILURES_TO_OPEN:
            return None
        wait = self._open_until - self._clock()
        if wait > 0:
            when = f"tried again in {format_duration(wait)}"
        elif self._probing:
            when = "being tried by another request now"
        else:
            return None
        sentence = f"failed {self._failures} times in a row, last: {self._last_failure}; {when}"
        return NotReady(RefusalCode.UNREACHABLE, sentence)

    def admit(self) -> NotReady | None:
        """Take an attempt's place: ``None``, or why there is none. What is admitted ends in one of the next three."""
        refusal = self.refusal()
        if refusal is None and self._failures >= FAILURES_TO_OPEN:
            self._probing = True
        return refusal

    def succeeded(self) -> None:
        """An attempt was answered."""
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._probing = False

    def abandoned(self) -> None:
        """An attempt was stopped before it showed anything."""
        self._probing = False

    def failed(self, error: AttemptError) -> None:
        """An attempt failed."""
        was_probing, self._probing = self._probing, False
        if not error.disposition.counts_for_breaker:
            return
        self._failures += 1
        self._last_failure = error.kind.value
        if was_probing:
            self._pause = min(self._pause * PAUSE_GROWTH, LONGEST_PAUSE)
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until = self._clock() + self._pause * self._random.uniform(2.0 - _MOST_JITTER, _MOST_JITTER)

    def snapshot(self) -> JsonValue:
        """Its failures in a row, and until when it is open."""
        return {
            "failures": self._failures,
            "pause": self._pause,
            "open_until": self._open_until,
            "last_failure": self._last_failure,
        }

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        stored, longest = table(value), LONGEST_PAUSE * _MOST_JITTER
        failures = int(number(stored, "failures", 0))
        pause = number(stored, "pause", FIRST_PAUSE, LONGEST_PAUSE)
        open_until = min(number(stored, "open_until") + shift, self._clock() + longest)
        last_failure = text(stored, "last_failure")
        if last_failure and last_failure not in set(FailureKind):
            raise Unreadable("no kind of failure at 'last_failure'")
        self._failures, self._pause, self._open_until, self._last_failure = failures, pause, open_until, last_failure
