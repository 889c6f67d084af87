"""A policy as written is judged and becomes a `Policy`: all mistakes at once, or one that may be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from typing import Any

from ..core.problem import Path, Problem, Severity
from ..core.suggestion import one_of
from .assertions import judge_assertions
from .classes import build_walls, own_walls, without
from .conditions import Condition, Vocabulary, compile_condition
from .evaluation import ConditionSet
from .facts import BackendTerms
from .futility import judge_futility
from .gaps import Gaps
from .own_places import expired_groups, read_places
from .places import Places
from .plan import Retry
from .planner import Defaults, Policy
from .reach import Reach
from .rules import Rule, RuleSet
from .settings import Objective, PolicySettings, RuleSettings
from .walls import Wall, Walls

MOST_CLASSES, MOST_BACKENDS, MOST_RULES, MOST_PROMISES = 100, 100, 1000, 100
"""Beyond these a policy is not judged: no file may hold up whoever loads it."""

RESERVED = frozenset({"remote", "device"})
"""What lists in rules mean by these names; no backend and no label may have them."""


def compile_policy(
    settings: PolicySettings,
    terms: Sequence[BackendTerms],
    places: Places,
    today: date | None = None,
    gaps: Gaps | None = None,
) -> tuple[Policy | None, tuple[Problem, ...]]:
    """The policy and its warnings; or ``None`` and every mistake. Problems' paths count from the policy's own section.

    ``places`` is without the policy's own sites and groups. ``today`` tells which groups have expired; without it none.
    With ``gaps`` there is no policy: what can be said of the rest is judged.
    """
    if too_many := _too_many(settings, terms):
        return None, too_many
    places, problems = read_places(settings, places)
    by_class = build_walls(settings.data_classes, places, problems)
    walls = Walls(by_class, settings.default_data_class, places.describe)
    _judge_classes(settings, problems)
    rules, conditions = _build_rules(settings, _targets(terms), gaps, problems)
    unhedged = without(settings.data_classes, "hedge")
    # What is granted cannot be told while a class, a place, a rule or a backend is wrong.
    tellable = (gaps is None or gaps.elsewhere) and not _has_errors(problems)
    reach = Reach(walls, terms, rules, conditions) if tellable else None
    if reach is not None:
        problems += _unused_classes(settings, terms, walls)
    problems += judge_assertions(settings, terms, places, reach)
    if reach is not None:
        written = own_walls(settings.data_classes, places, [])
        problems += judge_futility(settings, terms, written, walls, rules, unhedged, reach)
        problems += _unpriced(rules, conditions, terms)
    problems += [] if today is None else expired_groups(settings, places, today)
    _judge_values(settings, problems)
    if gaps is not None or reach is None or _has_errors(problems):
        return None, tuple(problems)
    policy = Policy(
        version=_version(settings, terms, by_class),
        terms=terms,
        places=places,
        walls=walls,
        conditions=ConditionSet(conditions),
        rules=RuleSet(rules, terms),
        defaults=_defaults(settings),
        tags=settings.tags,
        unhedged=unhedged,
        unqueued=without(settings.data_classes, "queue"),
        reach=reach,
    )
    return policy, tuple(problems)


def _too_many(settings: PolicySettings, terms: Sequence[BackendTerms]) -> tuple[Problem, ...]:
    """What is said of so many things that judging them all would take minutes."""
    counted: list[tuple[str, int, int, Path]] = [
        ("data classes", len(settings.data_classes), MOST_CLASSES, ("data_classes",)),
        ("backends", len(terms), MOST_BACKENDS, ()),
        ("rules", len(settings.rules), MOST_RULES, ("rules",)),
        ("promises", len(settings.assert_), MOST_PROMISES, ("assert",)),
    ]
    return tuple(
        Problem(f"{count} {what} are more than a policy can have: {most}", "say it with fewer", path)
        for what, count, most, path in counted
        if count > most
    )


def _has_errors(problems: Sequence[Problem]) -> bool:
    return any(problem.severity is Severity.ERROR for problem in problems)


def _judge_classes(settings: PolicySettings, problems: list[Problem]) -> None:
    default = settings.default_data_class
    if default is not None and default not in settings.data_classes:
        mend = one_of(default, settings.data_classes)
        sentence, declared = f"there is no data class {default!r}", (("data_classes", default),)
        problems.append(Problem(sentence, mend, ("default_data_class",), rests_on=declared))
    if not settings.data_classes:
        mend = "declare them, such as `data_classes: {public: {process_in: [any]}}` with `default_data_class: public`"
        sentence = "no data classes: content may be on this device only, for nothing else is known to be permitted"
        problems.append(Problem(sentence, mend, (), Severity.WARNING, rests_on=(("data_classes",),)))


def _unused_classes(settings: PolicySettings, terms: Sequence[BackendTerms], walls: Walls) -> list[Problem]:
    problems = []
    for name in settings.data_classes:
        objections = {each.name: walls.objection((name,), None, each.location) for each in terms}
        if terms and all(objections.values()):
            why = "; ".join(f"{backend}: {sentence}" for backend, sentence in objections.items())
            mend = "widen the class, or add a backend that fits it"
            path: Path = ("data_classes", name)
            problems.append(Problem(f"no backend may take the class {name!r} ({why})", mend, path, Severity.WARNING))
    return problems


def _unpriced(rules: Sequence[Rule], conditions: Sequence[Condition], terms: Sequence[BackendTerms]) -> list[Problem]:
    """Conditions on what was spent, and ceilings, where nobody has said what anything costs."""
    if any(each.price is not None for each in terms) or not any(each.remote for each in terms):
        return []
    mend = "write `price: {input: …, output: …}` at the backends that cost something"
    problems = []
    for at, rule in enumerate(rules):
        reads = () if rule.condition is None else conditions[rule.condition].reads
        if any(name.startswith("spending.") for name in reads):
            sentence = "no backend has a price, so nothing is ever spent"
            problems.append(Problem(sentence, mend, ("rules", at, "when"), Severity.WARNING))
        if rule.settings.set is not None and rule.settings.set.max_cost is not None:
            sentence = "no backend has a price, so nothing ever costs more"
            problems.append(Problem(sentence, mend, ("rules", at, "set", "max_cost"), Severity.WARNING))
    return problems


def _judge_values(settings: PolicySettings, problems: list[Problem]) -> None:
    def positive(value: float | None, path: Path) -> None:
        if value is not None and value <= 0:
            problems.append(Problem("the duration must be more than zero", "write one such as 800ms or 3s", path))

    def each_once(order: Sequence[Objective] | None, path: Path) -> None:
        for index, objective in enumerate(order or ()):
            if objective in (order or ())[:index]:
                problems.append(Problem(f"{objective} is there twice", "remove the second", (*path, index)))

    positive(settings.defaults.latency_budget, ("defaults", "latency_budget"))
    positive(settings.defaults.first_token_budget, ("defaults", "first_token_budget"))
    each_once(settings.defaults.order, ("defaults", "order"))
    retry = settings.resilience.retry
    if retry.max_attempts < 1:
        path: Path = ("resilience", "retry", "max_attempts")
        problems.append(Problem("an attempt is made at least once", "write 1 for no retry", path))
    if retry.max_backoff < retry.initial_backoff:
        path = ("resilience", "retry", "max_backoff")
        first: Path = ("resilience", "retry", "initial_backoff")
        sentence = "the longest wait is shorter than the first"
        problems.append(Problem(sentence, "raise max_backoff", path, rests_on=(first,)))
    offline = settings.offline
    positive(offline.queue_ttl, ("offline", "queue_ttl"))
    positive(offline.results_ttl, ("offline", "results_ttl"))
    limits = {"max_entries": offline.max_entries, "max_bytes": offline.max_bytes, "max_sends": offline.max_sends}
    for key, limit in limits.items():
        if limit < 1:
            problems.append(Problem(f"the outbox is of no use with `{key}` below 1", "raise it", ("offline", key)))
    if (encryption := offline.encryption) is not None:
        places = [encryption.key_file, encryption.key_env, encryption.keyring]
        if len([place for place in places if place]) != 1:
            mend = "write `key_file: …`, `key_env: …` or `keyring: …`, one of them"
            problems.append(Problem("the key stands in one place", mend, ("offline", "encryption")))
    for index, rule in enumerate(settings.rules):
        if rule.set is not None:
            base: Path = ("rules", index, "set")
            positive(rule.set.latency_budget, (*base, "latency_budget"))
            positive(rule.set.first_token_budget, (*base, "first_token_budget"))
            each_once(rule.set.order, (*base, "order"))
            if rule.set.max_cost is not None and not rule.set.max_cost >= 0:
                problems.append(Problem("a cost is zero or more", "write US dollars", (*base, "max_cost")))


def _build_rules(
    settings: PolicySettings, targets: Mapping[str, frozenset[int]], gaps: Gaps | None, problems: list[Problem]
) -> tuple[list[Rule], list[Condition]]:
    vocabulary = Vocabulary(frozenset(settings.data_classes), settings.tags)
    others = frozenset[str]() if gaps is None else gaps.names
    rules: list[Rule] = []
    conditions: list[Condition] = []
    names: set[str] = set()
    for index, written in enumerate(settings.rules):
        path: Path = ("rules", index)
        if written.name in names:
            mend = "give each rule its own name: decisions quote it"
            problems.append(Problem(f"two rules have the name {written.name!r}", mend, (*path, "name")))
        names.add(written.name)
        if not (written.prefer or written.avoid or written.deny or written.only is not None or written.set is not None):
            mend = "add prefer, avoid, deny, only or set"
            effects = tuple((*path, key) for key in ("prefer", "avoid", "deny", "only", "set"))
            problems.append(Problem("this rule does nothing", mend, path, rests_on=effects))
        position = None
        if written.when is not None:
            position = len(conditions)
            condition = compile_condition(written.when, (*path, "when"), vocabulary, problems)
            if condition is not None:
                conditions.append(condition)
        rules.append(_rule(written, position, targets, others, path, problems))
    return rules, conditions


def _rule(
    written: RuleSettings,
    condition: int | None,
    targets: Mapping[str, frozenset[int]],
    others: frozenset[str] | None,
    path: Path,
    problems: list[Problem],
) -> Rule:
    def resolve(key: str, names: Sequence[str]) -> frozenset[int]:
        found: set[int] = set()
        for at, name in enumerate(names):
            if others is not None and name not in targets and name not in others:
                mend = one_of(name, {*targets, *others})
                problems.append(Problem(f"there is no backend or label {name!r}", mend, (*path, key, at)))
            found |= targets.get(name, frozenset())
        return frozenset(found)

    return Rule(
        name=written.name,
        condition=condition,
        prefer=resolve("prefer", written.prefer),
        avoid=resolve("avoid", written.avoid),
        deny=resolve("deny", written.deny),
        only=None if written.only is None else resolve("only", written.only),
        settings=written,
    )


def _targets(terms: Sequence[BackendTerms]) -> dict[str, frozenset[int]]:
    """What each name in a rule's list means: positions of backends."""
    targets = {
        "remote": frozenset(at for at, each in enumerate(terms) if each.remote),
        "device": frozenset(at for at, each in enumerate(terms) if each.location.on_device),
    }
    for label in sorted({label for each in terms for label in each.labels}):
        targets[label] = frozenset(at for at, each in enumerate(terms) if label in each.labels)
    for at, each in enumerate(terms):
        targets[each.name] = targets.get(each.name, frozenset()) | {at}
    return targets


def _defaults(settings: PolicySettings) -> Defaults:
    retry = settings.resilience.retry
    return Defaults(
        latency_budget=settings.defaults.latency_budget,
        first_token_budget=settings.defaults.first_token_budget,
        order=settings.defaults.order,
        retry=Retry(retry.max_attempts, retry.initial_backoff, retry.max_backoff),
        stream_failover=settings.resilience.stream_failover,
    )


def _version(settings: PolicySettings, terms: Sequence[BackendTerms], walls: Mapping[str, Wall]) -> str:
    text = json.dumps([canonical(settings), canonical(list(terms)), canonical(walls)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(value: Any) -> Any:
    """The value as JSON takes it, the same for equal values in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: canonical(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: canonical(value[name]) for name in sorted(value)}
    if isinstance(value, frozenset):
        return sorted((canonical(each) for each in value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [canonical(each) for each in value]
    return value.name if isinstance(value, Enum) else value
