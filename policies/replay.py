"""Recorded decisions judged again by another policy, and what that comes to over many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ..core.decision import Refusal, RefusalCode
from ..core.request import Task
from .facts import Facts
from .plan import Plan

if TYPE_CHECKING:
    from .planner import Policy

K = TypeVar("K")

_FORBIDDEN = frozenset({RefusalCode.RESIDENCY, RefusalCode.DENIED, RefusalCode.NOT_SELECTED})
"""What the policy refuses; other refusals are the request's own and the world's."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that comes first for a request.

    ``seconds`` is its predicted median time to the whole answer, ``in_time`` the probability of keeping the budgets,
    ``cost`` what the tokens cost there, in US dollars.
    """

    backend: str
    seconds: float
    in_time: float
    cost: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A policy's word on one recorded decision. ``choice`` is ``None`` where nothing is permitted."""

    plan: Plan
    choice: Choice | None

    @property
    def backend(self) -> str | None:
        """The first choice's name."""
        return None if self.choice is None else self.choice.backend

    @property
    def order(self) -> tuple[str, ...]:
        """The backends in the order of the plan."""
        return tuple(step.backend for step in self.plan.steps)

    @property
    def forbidden(self) -> dict[str, Refusal]:
        """The backends that the policy itself refuses."""
        return {each.backend: each for each in self.plan.refusals if each.code in _FORBIDDEN}


def judge(policy: Policy, facts: Facts, prompt_tokens: int, output_tokens: int) -> Verdict:
    """What a policy makes of recorded facts; the tokens are those that really came. Raises `InvalidRequest`."""
    plan = policy.plan(facts)
    if not plan.steps:
        return Verdict(plan, None)
    first = plan.steps[0]
    free = facts.labels.task is Task.COUNT_TOKENS
    cost = 0.0 if free else policy.cost(first.backend, prompt_tokens, output_tokens)
    return Verdict(plan, Choice(first.backend, first.prediction.total.median(), first.p_done, cost))


@dataclass(slots=True)
class Totals:
    """What the first choices of many decisions come to. ``nobody`` counts those that no backend was permitted for."""

    first: Counter[str] = field(default_factory=Counter)
    nobody: int = 0
    cost: float = 0.0
    seconds: list[float] = field(default_factory=list)
    in_time: float = 0.0

    def add(self, choice: Choice | None) -> None:
        """Count one more."""
        if choice is None:
            self.nobody += 1
            return
        self.first[choice.backend] += 1
        self.cost += choice.cost
        self.seconds.append(choice.seconds)
        self.in_time += choice.in_time

    @property
    def likely_in_time(self) -> float | None:
        """The share of decisions that is expected to be done within the budget."""
        count = sum(self.first.values())
        return self.in_time / count if count else None


@dataclass(slots=True)
class Move:
    """Decisions whose first choice changes alike. ``example`` is one's request id, ``why`` its new reason."""

    example: str
    why: str
    count: int = 0


Moves = dict[tuple[str | None, str | None], Move]
"""By first choices before and after; ``None`` is nobody."""


@dataclass(slots=True)
class Changes:
    """What differs between two policies' words on the same decisions.

    ``opened`` and ``closed`` are by backend: the policy itself refused
    it before and permits it now, or the other way round. ``reordered``: the first choice is the same, and those that
    follow are not. ``handled``: budgets, hedging, retries or failover differ.
    """

    decisions: int = 0
    moved: Moves = field(default_factory=dict)
    opened: dict[str, Move] = field(default_factory=dict)
    closed: dict[str, Move] = field(default_factory=dict)
    reordered: int = 0
    handled: int = 0

    def add(self, before: Verdict, after: Verdict) -> None:
        """Count one more."""
        self.decisions += 1
        request = after.plan.request_id
        count_move(self.moved, before.backend, after)
        self.reordered += before.backend == after.backend and before.order != after.order
        for name in before.forbidden.keys() & set(after.order):
            _count(self.opened, name, request, f"before: {before.forbidden[name].sentence}")
        for name in after.forbidden.keys() & set(before.order):
            _count(self.closed, name, request, after.forbidden[name].sentence)
        self.handled += _handling(before.plan) != _handling(after.plan)


def count_move(moves: Moves, before: str | None, after: Verdict) -> None:
    """Count a decision whose first choice was another one."""
    if before != after.backend:
        _count(moves, (before, after.backend), after.plan.request_id, after.plan.reason)


def _handling(plan: Plan) -> tuple[object, ...]:
    return plan.latency_budget, plan.first_token_budget, plan.hedge, plan.stream_failover, plan.retry


def _count(moves: dict[K, Move], key: K, example: str, why: str) -> None:
    moves.setdefault(key, Move(example, why)).count += 1


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of the values lies under; ``None`` where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
