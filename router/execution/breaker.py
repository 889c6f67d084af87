"""Whether a backend that failed is left alone for now."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from ...core.decision import RefusalCode
from ...core.duration import format_duration
from ...core.failure import AttemptError, FailureKind
from ...policies.facts import NotReady
from ..snapshot import JsonValue, Unreadable, flag, number, table, text

FAILURES_TO_OPEN = 3
"""So many failures in a row open the breaker."""

SHARE_TO_OPEN = 0.5
LEAST_OUTCOMES = 10
MOST_OUTCOMES = 20
OUTCOMES_WITHIN = 30.0
"""And so does this share of failures among the last `MOST_OUTCOMES` of so many seconds, of `LEAST_OUTCOMES` at least:
what fails every other time never fails thrice in a row for long."""

FIRST_PAUSE = 1.0
PAUSE_GROWTH = 1.5
LONGEST_PAUSE = 5.0
"""Short, so that a backend that is back is used again soon; a probe risks one attempt, not a request."""

_MOST_JITTER = 1.2


class BreakerState(StrEnum):
    """What a breaker does with the next attempt."""

    CLOSED = "closed"
    """It is admitted."""
    OPEN = "open"
    """It is refused."""
    HALF_OPEN = "half_open"
    """It is admitted as the one probe, or refused beside it."""


class Breaker:
    """One backend's breaker.

    Closed, it admits everything. After too many failures, in a row or among the last ones, it is open for a pause that
    grows, ± 20 %; then it admits one attempt at a time, and the first success closes it. No count of other backends
    enters, so that it works for one as for three.
    """

    def __init__(self, clock: Callable[[], float], random_source: random.Random) -> None:
        self._clock = clock
        self._random = random_source
        self._failures = 0
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=MOST_OUTCOMES)
        self._pause = FIRST_PAUSE
        self._open_until: float | None = None
        """On the clock; ``None`` while it is closed."""
        self._probe: object | None = None
        self._last_failure = ""

    @property
    def state(self) -> BreakerState:
        """What it does with the next attempt."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.remaining_pause() > 0 else BreakerState.HALF_OPEN

    @property
    def failures_in_a_row(self) -> int:
        """How many there were since the last success."""
        return self._failures

    @property
    def failure_share(self) -> float:
        """The share of failures among the last outcomes; 0 where there are none."""
        recent = self._recent()
        return sum(recent) / len(recent) if recent else 0.0

    def remaining_pause(self) -> float:
        """Seconds for which it still admits nothing."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def refusal(self) -> NotReady | None:
        """Why no attempt is admitted now, or ``None``. Changes nothing."""
        if self._open_until is None:
            return None
        wait = self._open_until - self._clock()
        if wait > 0:
            when = f"tried again in {format_duration(wait)}"
        elif self._probe is not None:
            when = "being tried by another request now"
        else:
            return None
        often = f"{self._failures} times in a row" if self._failures >= FAILURES_TO_OPEN else "too often of late"
        return NotReady(RefusalCode.UNREACHABLE, f"failed {often}, last: {self._last_failure}; {when}")

    def admit(self, attempt: object) -> NotReady | None:
        """Take an attempt's place: ``None``, or why there is none. What is admitted ends in one of the next three.

        The attempt is known again by its identity. So one that began before the breaker opened, and ends late, has no
        say in whose turn it is to probe, nor in how long the pause is.
        """
        refusal = self.refusal()
        if refusal is None and self._open_until is not None:
            self._probe = attempt
        return refusal

    def try_now(self) -> None:
        """The way there works again: what it failed by may be over, so the next attempt may find out."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, self._clock())

    def succeeded(self, attempt: object) -> None:
        """An attempt was answered."""
        self._outcomes.append((self._clock(), False))
        opened = self._open_until is not None
        if opened and self._probe is not attempt and self._failures < FAILURES_TO_OPEN:
            # One that began before. It was opened because such successes are too few.
            self._failures = 0
            return
        if opened:
            self._open_until = None
            self._outcomes.clear()
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._probe = None

    def abandoned(self, attempt: object) -> None:
        """An attempt was stopped before it showed anything."""
        if self._probe is attempt:
            self._probe = None

    def failed(self, attempt: object, error: AttemptError) -> None:
        """An attempt failed."""
        probed = self._probe is attempt
        self.abandoned(attempt)
        if not error.disposition.counts_for_breaker:
            return
        self._failures += 1
        self._outcomes.append((self._clock(), True))
        self._last_failure = error.kind.value
        if probed:
            self._pause = min(self._pause * PAUSE_GROWTH, LONGEST_PAUSE)
        too_often = self._failures >= FAILURES_TO_OPEN or self._fails_too_often()
        if probed or (self._open_until is None and too_often):
            self._open_until = self._clock() + self._pause * self._random.uniform(2.0 - _MOST_JITTER, _MOST_JITTER)

    def _fails_too_often(self) -> bool:
        recent = self._recent()
        return len(recent) >= LEAST_OUTCOMES and sum(recent) >= SHARE_TO_OPEN * len(recent)

    def _recent(self) -> list[bool]:
        since = self._clock() - OUTCOMES_WITHIN
        return [failed for at, failed in self._outcomes if at >= since]

    def snapshot(self) -> JsonValue:
        """Its failures in a row, whether it is open, and until when."""
        return {
            "failures": self._failures,
            "opened": self._open_until is not None,
            "pause": self._pause,
            "open_until": self._open_until or 0.0,
            "last_failure": self._last_failure,
        }

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        stored, longest = table(value), LONGEST_PAUSE * _MOST_JITTER
        failures = int(number(stored, "failures", 0))
        opened = flag(stored, "opened")
        pause = number(stored, "pause", FIRST_PAUSE, LONGEST_PAUSE)
        open_until = min(number(stored, "open_until") + shift, self._clock() + longest)
        last_failure = text(stored, "last_failure")
        if last_failure and last_failure not in set(FailureKind):
            raise Unreadable("no kind of failure at 'last_failure'")
        self._failures, self._pause = failures, pause
        self._open_until, self._last_failure = open_until if opened else None, last_failure
