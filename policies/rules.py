"""Rules: what those that match do together. They only narrow; no rule opens a wall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.decision import Refusal, RefusalCode
from .facts import BackendTerms
from .plan import StreamFailover
from .settings import Objective, RuleSettings

_REMEMBERED = 512


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

    ``refusals`` has one entry a backend. ``avoided`` gives the rule's name, ``preferred`` the rule's position (later
    is stronger) and name. What no rule sets is ``None``.
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
    """All rules of a policy. The same outcomes always come to the same effects, which are remembered."""

    def __init__(self, rules: Sequence[Rule], backends: Sequence[BackendTerms]) -> None:
        self.rules = tuple(rules)
        self._names = tuple(terms.name for terms in backends)
        self._remembered: dict[tuple[bool | None, ...], Effects] = {}

    def effects(self, outcomes: tuple[bool | None, ...]) -> Effects:
        """What the rules come to when their conditions have these outcomes; ``None`` is a condition that failed."""
        known = self._remembered.get(outcomes)
        if known is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = self._remembered[outcomes] = self._combine(outcomes)
        return known

    def _combine(self, outcomes: tuple[bool | None, ...]) -> Effects:
        held = [(rule, True if rule.condition is None else outcomes[rule.condition]) for rule in self.rules]
        matched = [rule for rule, holds in held if holds is True]
        failed = [rule for rule, holds in held if holds is None]
        refusing = [rule for rule, holds in held if holds is not False]
        settings = [rule.settings.set for rule in matched if rule.settings.set is not None]
        order: tuple[Objective, ...] | None = None
        latency = first_token = None
        hedge: bool | None = None
        failover: StreamFailover | None = None
        for each in settings:
            latency = latency if each.latency_budget is None else each.latency_budget
            first_token = first_token if each.first_token_budget is None else each.first_token_budget
            order = order if each.order is None else each.order
            hedge = hedge if each.hedge is None else each.hedge
            failover = failover if each.stream_failover is None else each.stream_failover
        return Effects(
            refusals=tuple(_refusal(index, name, refusing) for index, name in enumerate(self._names)),
            avoided={index: rule.name for rule in matched for index in rule.avoid},
            preferred={
                index: (strength, rule.name) for strength, rule in enumerate(matched, start=1) for index in rule.prefer
            },
            latency_budget=latency,
            first_token_budget=first_token,
            order=order,
            max_cost=min((each.max_cost for each in settings if each.max_cost is not None), default=None),
            hedge=hedge,
            stream_failover=failover,
            matched=tuple(rule.name for rule in matched),
            notes=tuple(
                f"the condition of rule {rule.name!r} failed: "
                + ("its deny and only apply, nothing else of it" if rule.refuses else "it does not apply")
                for rule in failed
            ),
        )


def _refusal(index: int, backend: str, rules: Sequence[Rule]) -> Refusal | None:
    for rule in rules:
        if index in rule.deny:
            return Refusal(backend, RefusalCode.DENIED, f"rule {rule.name!r} denies it")
    for rule in rules:
        if rule.only is not None and index not in rule.only:
            return Refusal(backend, RefusalCode.NOT_SELECTED, f"rule {rule.name!r} permits others only")
    return None
