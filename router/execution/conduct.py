"""What every execution works with, and one request being carried through."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.deadline import Deadline
from ...core.decision import AttemptRecord, Decision, RefusalCode
from ...core.failure import DISPOSITIONS, FailureKind
from ...core.request import Request, Task
from ...policies.facts import Facts
from ...policies.order import QUALITY_TOLERANCE
from ...policies.plan import Plan
from ..conversations import Conversation
from ..device import Device
from ..dispatch import Dispatch
from ..fleet import Fleet
from ..link import Connectivity
from ..spending import Spending

if TYPE_CHECKING:
    from .attempt import Attempt

_OUT_OF_ORDER = frozenset(
    {
        RefusalCode.OFFLINE,
        RefusalCode.UNREACHABLE,
        RefusalCode.INTERCEPTED,
        RefusalCode.QUARANTINED,
        RefusalCode.LOADING,
    }
)
_NO_FAULT_OF_ITS_OWN = frozenset({FailureKind.OVERLOADED, FailureKind.CONFLICT, FailureKind.PREEMPTED})


@dataclass(frozen=True, slots=True)
class Conduct:
    """What belongs to the router and serves all its requests."""

    fleet: Fleet
    dispatch: Dispatch
    connectivity: Connectivity
    device: Device
    random: random.Random
    spending: Spending
    under_way: set[Attempt] = field(default_factory=set)
    """The attempts that run or wait for their turn. Each enters and leaves by itself."""


@dataclass(frozen=True, slots=True)
class Run:
    """One request with its plan, its clock, and the decision that is written as it goes."""

    conduct: Conduct
    request: Request
    plan: Plan
    decision: Decision
    facts: Facts
    """What it was decided by."""
    conversation: Conversation | None = None
    read_for: float = 0.0
    """Seconds for which a slow reader kept the request waiting. They are not the request's."""

    @property
    def deadline(self) -> Deadline:
        """When the request has ended."""
        return Deadline.after(self.request.started_at, self.plan.latency_budget + self.read_for)

    @property
    def begin_by(self) -> Deadline | None:
        """When the first token has come; ``None`` where no first-token budget is set."""
        budget = self.plan.first_token_budget
        return None if budget is None else Deadline.after(self.request.started_at, budget)

    @property
    def first_token_deadline(self) -> Deadline:
        """When the first token has come; the deadline itself where no first-token budget is set."""
        return self.begin_by or self.deadline

    def answered(self, backend: str, now: float) -> None:
        """The answer is whole, given by this backend, at ``now`` on the event loop's clock."""
        self.decision.answered_by = backend
        self.decision.ended = now - self.request.started_at
        if self.conversation is not None and self.request.labels.task is Task.GENERATE:
            self.conversation.backend = None if self._stood_in(backend) else backend

    def _stood_in(self, backend: str) -> bool:
        """Whether it answered only because a better one was out of order: one bad turn must not cost all later ones."""
        fleet = self.conduct.fleet
        absent = [refusal.backend for refusal in self.plan.refusals if refusal.code in _OUT_OF_ORDER]
        failed = [attempt.backend for attempt in self.decision.attempts if _was_out_of_order(attempt)]
        enough = fleet[backend].terms.quality + QUALITY_TOLERANCE
        return any(fleet[name].terms.quality > enough for name in (*absent, *failed))


def _was_out_of_order(attempt: AttemptRecord) -> bool:
    kind = attempt.failure
    return kind is not None and (kind in _NO_FAULT_OF_ITS_OWN or DISPOSITIONS[kind].counts_for_breaker)
