"""One request's reasoning in full: every backend and every rule, where a plan names the first reason alone."""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts
from .plan import Plan, Step
from .planner import Policy


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """What became of a rule. ``holds`` is ``None`` where its condition failed; ``does`` is what it then does."""

    name: str
    when: str | None
    holds: bool | None
    does: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackendFinding:
    """What speaks for and against a backend. ``step`` is its place in the plan, ``None`` where it is refused."""

    name: str
    step: Step | None
    against: tuple[str, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The plan for some facts, and all that led to it. Backends stand in the configuration's order."""

    plan: Plan
    rules: tuple[RuleFinding, ...]
    backends: tuple[BackendFinding, ...]


def explain(policy: Policy, facts: Facts) -> Explanation:
    """The whole reasoning. Raises `InvalidRequest` as planning does."""
    plan = policy.plan(facts)
    outcomes = policy.rule_outcomes(facts)
    findings = []
    for rule, holds in zip(policy.rules, outcomes, strict=True):
        does = [
            f"{key} {', '.join(names)}" for key in ("prefer", "avoid", "deny") if (names := getattr(rule.settings, key))
        ]
        if rule.settings.only is not None:
            does.append(f"only {', '.join(rule.settings.only) or 'none'}")
        if rule.settings.set is not None:
            does.append("set")
        findings.append(RuleFinding(rule.name, rule.settings.when, holds, tuple(does)))
    return Explanation(plan, tuple(findings), tuple(_backends(policy, facts, plan, outcomes)))


def _backends(policy: Policy, facts: Facts, plan: Plan, outcomes: tuple[bool | None, ...]) -> list[BackendFinding]:
    steps = {step.backend: step for step in plan.steps}
    refusals = {refusal.backend: refusal.sentence for refusal in plan.refusals}
    findings = []
    for at, terms in enumerate(policy.terms):
        against = list(policy.walls.objections(plan.data_classes, facts.labels.residency, terms.location))
        rules = []
        for rule, holds in zip(policy.rules, outcomes, strict=True):
            refuses = at in rule.deny or (rule.only is not None and at not in rule.only)
            if refuses and holds is not False:
                against.append(f"rule {rule.name!r} " + ("denies it" if at in rule.deny else "permits others only"))
            if holds is True:
                rules += [f"rule {rule.name!r} prefers it"] if at in rule.prefer else []
                rules += [f"rule {rule.name!r} avoids it"] if at in rule.avoid else []
        first = refusals.get(terms.name)
        if first is not None and first not in against:
            against.append(first)
        findings.append(BackendFinding(terms.name, steps.get(terms.name), tuple(against), tuple(rules)))
    return findings
