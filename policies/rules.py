"""Rules: what those that match do together. They only narrow; no rule opens a wall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from ..core.decision import Refusal, RefusalCode
from .evaluation import Outcomes
from .facts import BackendTerms
from .plan import StreamFailover
from .settings import Objective, RuleSettings


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its names resolved to positions among the policy's backends.

    ``condition`` is its condition's position, ``None`` for a rule that always applies.
    """

    name: str
    condition: int | None
    prefer: frozenset[int]
    avoid: frozenset[int]
    deny: frozenset[int]
    only: frozenset[int] | None
    settings: RuleSettings

    @property
    def refuses(self) -> bool:
        """Whether it can take backends away: then it applies even if its condition fails."""
        return bool(self.deny) or self.only is not None


@dataclass(frozen=True, slots=True)
class Effects:
    """What all rules that apply come to, for one combination of outcomes.

    ``refusals`` has one entry a backend. ``avoided`` gives the rule's name, ``preferred`` a strength (later rules are
    stronger) and the rule's name. What no rule sets is ``None``.
    """

    refusals: tuple[Refusal | None, ...]
    avoided: Mapping[int, str]
    preferred: Mapping[int, tuple[int, str]]
    latency_budget: float | None
    first_token_budget: float | None
    order: tuple[Objective, ...] | None
    max_cost: float | None
    hedge: bool | None
    stream_failover: StreamFailover | None
    matched: tuple[str, ...]
    notes: tuple[str, ...]


class RuleSet:
    """All rules of a policy, indexed by what they speak of: of those that match, the first or the last one decides."""

    def __init__(self, rules: Sequence[Rule], backends: Sequence[BackendTerms]) -> None:
        self.rules = tuple(rules)
        self._names = tuple(terms.name for terms in backends)
        self._unconditional = frozenset(at for at, rule in enumerate(rules) if rule.condition is None)
        self._conditional = tuple(at for at, rule in enumerate(rules) if rule.condition is not None)
        numbered, each_backend = list(enumerate(rules)), range(len(self._names))
        self._denying = [[at for at, rule in numbered if index in rule.deny] for index in each_backend]
        self._selecting_others = [
            [at for at, rule in numbered if rule.only is not None and index not in rule.only] for index in each_backend
        ]
        self._avoiding = [[at for at, rule in reversed(numbered) if index in rule.avoid] for index in each_backend]
        self._preferring = [[at for at, rule in reversed(numbered) if index in rule.prefer] for index in each_backend]
        self._setting = [(at, rule.settings.set) for at, rule in numbered if rule.settings.set is not None]

    def outcomes(self, conditions: Outcomes) -> tuple[bool | None, ...]:
        """Whether each rule matches, in their order; ``None`` where its condition failed."""
        matched, failed = self._matched(conditions), self._failed(conditions)
        return tuple(None if at in failed else at in matched for at in range(len(self.rules)))

    def effects(self, conditions: Outcomes) -> Effects:
        """What the rules come to when their conditions come out so."""
        matched, failed = self._matched(conditions), self._failed(conditions)
        refusing = matched | failed
        avoided = [_first(rules, matched) for rules in self._avoiding]
        preferred = [_first(rules, matched) for rules in self._preferring]
        order: tuple[Objective, ...] | None = None
        latency = first_token = max_cost = None
        hedge: bool | None = None
        failover: StreamFailover | None = None
        for at, each in self._setting:
            if at in matched:
                latency = latency if each.latency_budget is None else each.latency_budget
                first_token = first_token if each.first_token_budget is None else each.first_token_budget
                order = order if each.order is None else each.order
                hedge = hedge if each.hedge is None else each.hedge
                failover = failover if each.stream_failover is None else each.stream_failover
                if each.max_cost is not None:
                    max_cost = each.max_cost if max_cost is None else min(max_cost, each.max_cost)
        return Effects(
            refusals=tuple([self._refusal(index, refusing) for index in range(len(self._names))]),
            avoided={index: self.rules[at].name for index, at in enumerate(avoided) if at is not None},
            preferred={index: (at + 1, self.rules[at].name) for index, at in enumerate(preferred) if at is not None},
            latency_budget=latency,
            first_token_budget=first_token,
            order=order,
            max_cost=max_cost,
            hedge=hedge,
            stream_failover=failover,
            matched=tuple([self.rules[at].name for at in sorted(matched)]),
            notes=tuple([_note(self.rules[at]) for at in sorted(failed)]),
        )

    def _matched(self, conditions: Outcomes) -> Set[int]:
        return self._unconditional.union(_where_set(self._conditional, conditions.held))

    def _failed(self, conditions: Outcomes) -> Set[int]:
        return _where_set(self._conditional, conditions.failed)

    def _refusal(self, index: int, refusing: Set[int]) -> Refusal | None:
        backend = self._names[index]
        if (at := _first(self._denying[index], refusing)) is not None:
            return Refusal(backend, RefusalCode.DENIED, f"rule {self.rules[at].name!r} denies it")
        if (at := _first(self._selecting_others[index], refusing)) is not None:
            return Refusal(backend, RefusalCode.NOT_SELECTED, f"rule {self.rules[at].name!r} permits others only")
        return None


def _where_set(rules: Sequence[int], bits: int) -> Set[int]:
    """Those rules at whose positions the bits are 1."""
    return {rule for rule, bit in zip(rules, f"{bits:b}"[::-1], strict=False) if bit == "1"}


def _first(rules: Sequence[int], among: Set[int]) -> int | None:
    return next((at for at in rules if at in among), None)


def _note(failed: Rule) -> str:
    what = "its deny and only apply, nothing else of it" if failed.refuses else "it does not apply"
    return f"the condition of rule {failed.name!r} failed: {what}"
