"""A link that comes and goes is not told as online again before it has held for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...policies.facts import LinkState
from ..snapshot import JsonValue, numbers, table

REMEMBERED = 60.0
"""Seconds for which a loss counts."""
FLAPPING = 3
"""So many losses in that time make a link that comes and goes."""
LONGEST_HOLD = 16.0
LASTS = 1.0
"""Seconds after which also a link that comes and goes counts as offline."""


class Damping:
    """Turns what the link looks like now into what is told.

    The first loss and the first return are told at once. After ``n`` losses within a minute the link is `limited` for
    ``2^(n-2)`` seconds from its return, at most 16, and only then `online`; from three losses on, a loss of less than a
    second is told as `limited` too. The idea is that of route flap damping (RFC 2439), as a hold.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._losses: deque[float] = deque(maxlen=16)
        self._lost_at: float | None = None
        self._back_at: float | None = None

    @property
    def losses(self) -> int:
        """How often the link was lost within the last minute."""
        since = self._clock() - REMEMBERED
        while self._losses and self._losses[0] <= since:
            self._losses.popleft()
        return len(self._losses)

    def snapshot(self) -> JsonValue:
        """When it was lost within the last minute."""
        return {"losses": list(self._losses)} if self.losses else None

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back. Raises `Unreadable`."""
        if value is not None:
            now = self._clock()
            self._losses.extend(min(now, at + shift) for at in numbers(table(value), "losses"))

    def told(self, state: LinkState, silent_since: float) -> tuple[LinkState, float | None]:
        """The state to tell, and when, on the clock, to judge again at the latest.

        A link that is lost now may have been silent before; that counts.
        """
        now = self._clock()
        if state is LinkState.OFFLINE:
            if self._lost_at is None:
                self._lost_at, self._back_at = min(now, silent_since), None
                self._losses.append(now)
            due = self._lost_at + LASTS
            if self.losses >= FLAPPING and now < due:
                return LinkState.LIMITED, due
            return LinkState.OFFLINE, None
        if state is not LinkState.ONLINE:
            return state, None
        if self._lost_at is not None:
            self._lost_at, self._back_at = None, now
        if self._back_at is None:
            return state, None
        due = self._back_at + self._hold()
        if now < due:
            return LinkState.LIMITED, due
        self._back_at = None
        return LinkState.ONLINE, None

    def _hold(self) -> float:
        losses = self.losses
        return 0.0 if losses < 2 else min(2.0 ** (losses - 2), LONGEST_HOLD)
