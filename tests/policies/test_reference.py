"""The planner beside a naive one written from the documentation, and the proofs beside what is really granted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.core.decision import Decision
from edgewise.core.place import DEVICE, Evidence, Location, Place, PlaceSet
from edgewise.core.request import Labels, Priority, Task
from edgewise.policies import Policy, compile_policy
from edgewise.policies.difference import compare
from edgewise.policies.facts import (
    BackendFacts,
    BackendTerms,
    DeviceFacts,
    Facts,
    LinkFacts,
    LinkState,
    LogNormal,
    Prediction,
    TimeFacts,
)
from edgewise.policies.places import Places
from edgewise.policies.settings import DataClassSettings, PolicySettings, RuleSettings
from edgewise.router.decision_line import line_of
from edgewise.router.decision_reading import facts_of, read_line

CLASSES = ("public", "personal", "health")
COUNTRIES = ("DE", "NL", "US")
NAMES = ("phone", "near", "far")
QUICK = Prediction(LogNormal(-2.0, 0.1), LogNormal(-1.0, 0.1))

# Each condition as text, and as the documentation says it: over one class, all classes, and the facts.
Reads = Callable[[str, tuple[str, ...], Facts], bool]
CONDITIONS: dict[str | None, Reads] = {
    None: lambda one, all_, facts: True,
    "connectivity.metered": lambda one, all_, facts: facts.link.metered,
    "!connectivity.metered": lambda one, all_, facts: not facts.link.metered,
    "request.prompt_tokens > 100": lambda one, all_, facts: facts.labels.prompt_tokens > 100,
    'request.priority == "high" || device.charging': lambda one, all_, facts: (
        facts.labels.priority is Priority.HIGH or facts.device.charging
    ),
    'request.data_class == "health"': lambda one, all_, facts: one == "health",
    'request.data_class != "public"': lambda one, all_, facts: one != "public",
    '!("public" in request.data_classes)': lambda one, all_, facts: "public" not in all_,
    '"health" in request.data_classes && connectivity.metered': lambda one, all_, facts: (
        "health" in all_ and facts.link.metered
    ),
}

countries = st.lists(st.sampled_from(COUNTRIES), min_size=1, max_size=2, unique=True).map(tuple)
class_settings = st.builds(
    DataClassSettings,
    process_in=st.one_of(st.just(("any",)), st.just(()), countries),
    operators=st.none() | countries,
    evidence=st.none() | st.just(Evidence.CONTRACTUAL),
)
targets = st.lists(st.sampled_from([*NAMES, "remote", "device"]), max_size=2, unique=True).map(tuple)
rule_parts = st.fixed_dictionaries(
    {"when": st.sampled_from(list(CONDITIONS))},
    optional={"deny": targets, "only": targets, "prefer": targets, "avoid": targets},
)
locations = st.builds(
    lambda there, by, evidence: Location(_set(there), _set(there), _set(by), evidence),
    countries,
    countries,
    st.sampled_from([Evidence.DECLARED, Evidence.CONTRACTUAL]),
)
facts_parts = st.fixed_dictionaries(
    {
        "classes": st.lists(st.sampled_from(CLASSES), max_size=2, unique=True).map(tuple),
        "metered": st.booleans(),
        "charging": st.booleans(),
        "tokens": st.sampled_from([10, 1000]),
        "priority": st.sampled_from(list(Priority)),
        "state": st.sampled_from([LinkState.ONLINE, LinkState.OFFLINE]),
        "conversation": st.none() | st.sampled_from(NAMES),
    }
)
world = st.fixed_dictionaries(
    {
        "classes": st.fixed_dictionaries(dict.fromkeys(CLASSES, class_settings)),
        "default": st.none() | st.sampled_from(CLASSES),
        "rules": st.lists(rule_parts, max_size=4),
        "near": locations,
        "far": locations,
    }
)
thorough = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def _set(codes: tuple[str, ...]) -> PlaceSet:
    return PlaceSet.of(Place(code) for code in codes)


def _terms(made: dict[str, Any]) -> list[BackendTerms]:
    tasks = frozenset({Task.GENERATE})
    return [
        BackendTerms("phone", DEVICE, tasks, remote=False, quality=0.3),
        BackendTerms("near", made["near"], tasks, remote=True, quality=0.6),
        BackendTerms("far", made["far"], tasks, remote=True, quality=0.9),
    ]


def _rules(parts: list[dict[str, Any]]) -> tuple[RuleSettings, ...]:
    effective = [each for each in parts if any(each.get(key) for key in ("deny", "prefer", "avoid")) or "only" in each]
    return tuple(RuleSettings(f"rule {at}", **each) for at, each in enumerate(effective))


def _policy(made: dict[str, Any], places: Places, rules: tuple[RuleSettings, ...]) -> Policy:
    written = PolicySettings(data_classes=made["classes"], default_data_class=made["default"], rules=rules)
    policy, problems = compile_policy(written, _terms(made), places)
    assert policy is not None, problems
    return policy


def _facts(parts: dict[str, Any]) -> Facts:
    labels = Labels(
        Task.GENERATE,
        parts["classes"],
        prompt_tokens=parts["tokens"],
        priority=parts["priority"],
        unclassed=not parts["classes"],
        latency_budget=60.0,
    )
    return Facts(
        "request",
        labels,
        LinkFacts(parts["state"], parts["metered"]),
        DeviceFacts(charging=parts["charging"]),
        TimeFacts(12, 0, "monday"),
        tuple(BackendFacts(name, QUICK) for name in NAMES),
        conversation_backend=parts["conversation"],
    )


def _granted(policy: Policy, facts: Facts) -> list[str]:
    return [step.backend for step in policy.plan(facts).steps]


# --- the naive planner


def _naive(made: dict[str, Any], rules: tuple[RuleSettings, ...], facts: Facts) -> list[str]:
    given_classes = facts.labels.data_classes
    default = CLASSES if made["default"] is None else (made["default"],)
    classes = tuple(sorted(given_classes or default))

    def holds(rule: RuleSettings) -> bool:
        return any(CONDITIONS[rule.when](one, classes, facts) for one in classes)

    def named(names: tuple[str, ...], backend: BackendTerms) -> bool:
        return backend.name in names or ("remote" if backend.remote else "device") in names

    matching = [rule for rule in rules if holds(rule)]
    ranked = []
    for terms in _terms(made):
        walls = all(_fits(terms.location, made["classes"][name]) for name in classes)
        denied = any(named(rule.deny, terms) for rule in matching)
        selected = all(rule.only is None or named(rule.only, terms) for rule in matching)
        reachable = facts.link.state is LinkState.ONLINE or not terms.remote
        if walls and not denied and selected and reachable:
            avoided = any(named(rule.avoid, terms) for rule in matching)
            preferred = max((at for at, rule in enumerate(matching, 1) if named(rule.prefer, terms)), default=0)
            moves = terms.name != facts.conversation_backend
            ranked.append((avoided, -preferred, moves, -terms.quality, terms.name))
    return [name for *_, name in sorted(ranked)]


def _fits(location: Location, written: DataClassSettings) -> bool:
    if location.on_device:
        return True

    def within(has: PlaceSet, permits: tuple[str, ...] | None) -> bool:
        permits = written.process_in if permits is None else permits
        assert permits is not None
        return permits == ("any",) or {place.country for place in has.places} <= set(permits)

    return (
        within(location.process_in, written.process_in)
        and within(location.store_in, written.store_in)
        and within(location.operators, written.operators)
        and location.evidence >= (written.evidence or Evidence.DECLARED)
    )


@thorough
@given(made=world, parts=st.lists(facts_parts, min_size=1, max_size=4))
def test_the_planner_grants_what_the_documentation_says_in_its_order(
    places: Places, made: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    rules = _rules(made["rules"])
    policy = _policy(made, places, rules)
    for each in parts:
        facts = _facts(each)
        assert _granted(policy, facts) == _naive(made, rules, facts)


@thorough
@given(made=world, more=rule_parts, parts=facts_parts, process_in=countries)
def test_narrowing_never_enlarges_what_is_reached(
    places: Places, made: dict[str, Any], more: dict[str, Any], parts: dict[str, Any], process_in: tuple[str, ...]
) -> None:
    rules = _rules(made["rules"])
    policy, facts = _policy(made, places, rules), _facts(parts)
    granted = set(_granted(policy, facts))
    narrower = {key: value for key, value in more.items() if key in ("when", "deny", "only")}
    if narrower.get("deny") or "only" in narrower:
        extended = _policy(made, places, (*rules, RuleSettings("one more", **narrower)))
        assert set(_granted(extended, facts)) <= granted
        assert compare(policy, extended).opened == ()
    residency = policy.residency({"process_in": process_in})
    assert set(_granted(policy, replace(facts, labels=replace(facts.labels, residency=residency)))) <= granted
    if parts["classes"]:
        for name in CLASSES:
            labels = replace(facts.labels, data_classes=tuple({*parts["classes"], name}))
            walls = {
                each.name
                for each in policy.terms
                if policy.walls.objection(labels.data_classes, None, each.location) is None
            }
            assert set(_granted(policy, replace(facts, labels=labels))) <= walls


@thorough
@given(made=world, parts=st.lists(facts_parts, min_size=1, max_size=6))
def test_nothing_is_granted_that_was_proven_never(
    places: Places, made: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    policy = _policy(made, places, _rules(made["rules"]))
    for each in parts:
        facts = _facts(each)
        classes = policy.effective_classes(facts.labels)
        for name in _granted(policy, facts):
            at = NAMES.index(name)
            assert policy.reach.objection(at, classes) is None
            for one in classes:
                assert policy.reach.example(at, (one,)) is not None


@thorough
@given(made=world, other=world, parts=st.lists(facts_parts, min_size=1, max_size=6))
def test_whatever_a_change_opens_is_shouted(
    places: Places, made: dict[str, Any], other: dict[str, Any], parts: list[dict[str, Any]]
) -> None:
    old, new = _policy(made, places, _rules(made["rules"])), _policy(other, places, _rules(other["rules"]))
    opened: set[tuple[tuple[str, ...], str]] = {(each.data_classes, each.backend) for each in compare(old, new).opened}
    for each in parts:
        facts = _facts(each)
        for name in set(_granted(new, facts)) - set(_granted(old, facts)):
            classes = facts.labels.data_classes
            told: set[tuple[tuple[str, ...], str]] = {
                ((one,), name) for one in (classes or new.effective_classes(facts.labels))
            }
            told = told if classes else {*told, ((), name)}
            assert told & opened, (classes, name)


@thorough
@given(made=world, other=world, parts=facts_parts)
def test_a_permit_of_an_older_policy_is_worth_what_the_newest_walls_say(
    places: Places, made: dict[str, Any], other: dict[str, Any], parts: dict[str, Any]
) -> None:
    old, new = _policy(made, places, _rules(made["rules"])), _policy(other, places, _rules(other["rules"]))
    facts = _facts(parts)
    default = CLASSES if other["default"] is None else (other["default"],)
    locations = {each.name: each.location for each in _terms(other)}
    for step in old.plan(facts).steps:
        fits = all(
            _fits(locations[step.backend], other["classes"][name]) for name in facts.labels.data_classes or default
        )
        assert (new.permits(step.permit, facts.labels) is None) is fits


@thorough
@given(made=world, parts=facts_parts)
def test_a_recorded_decision_is_judged_again_as_it_was(
    places: Places, made: dict[str, Any], parts: dict[str, Any]
) -> None:
    policy, facts = _policy(made, places, _rules(made["rules"])), _facts(parts)
    plan = policy.plan(facts)
    decision = Decision("r", Task.GENERATE, plan.data_classes, policy.version, 1.0, None, "", (), (), ())
    line = line_of(decision, facts, policy, "answered", datetime(2026, 3, 2, 9, 30), 0)
    again = policy.plan(facts_of(read_line(line), policy, {}))
    assert [(step.backend, step.reason) for step in again.steps] == [(step.backend, step.reason) for step in plan.steps]
    assert again.refusals == plan.refusals
