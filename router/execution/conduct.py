"""What every execution works with, and one request being carried through."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.deadline import Deadline
from ...core.decision import Decision
from ...core.request import Request
from ...policies.facts import Facts
from ...policies.plan import Plan
from ..device import Device
from ..dispatch import Dispatch
from ..fleet import Fleet
from ..link import Connectivity

if TYPE_CHECKING:
    from .attempt import Attempt


@dataclass(frozen=True, slots=True)
class Conduct:
    """What belongs to the router and serves all its requests."""

    fleet: Fleet
    dispatch: Dispatch
    connectivity: Connectivity
    device: Device
    random: random.Random
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

    @property
    def deadline(self) -> Deadline:
        """When the request has ended."""
        return Deadline.after(self.request.started_at, self.plan.latency_budget)

    @property
    def first_token_deadline(self) -> Deadline:
        """When the first token has come; the deadline itself where no first-token budget is set."""
        budget = self.plan.first_token_budget
        return self.deadline if budget is None else Deadline.after(self.request.started_at, budget)
