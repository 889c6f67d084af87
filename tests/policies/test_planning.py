"""Plans: capability, readiness, order, the last resort, budgets; and permits, checked again."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewise.policies
from edgewise.core.decision import RefusalCode
from edgewise.core.errors import InvalidRequest
from edgewise.core.permit import Permit
from edgewise.core.place import DEVICE, Place, PlaceSet
from edgewise.core.price import Price
from edgewise.core.request import Labels, Priority, Residency, Task
from edgewise.policies import Policy
from edgewise.policies.facts import BackendTerms, Facts, LinkFacts, LinkState, LogNormal, NotReady, Prediction
from edgewise.policies.memory import Memory
from edgewise.policies.order import Candidate, Standing, in_order
from edgewise.policies.settings import (
    DataClassSettings,
    DefaultsSettings,
    Objective,
    RuleSettings,
    SetSettings,
    SiteSettings,
)

MakePolicy = Callable[..., Policy]
MakeFacts = Callable[..., Facts]
QUICK = Prediction(LogNormal(-2.0, 0.1), LogNormal(-1.0, 0.1))
SLOW = Prediction(LogNormal(0.0, 0.3), LogNormal(1.0, 0.3))  # first token in 1 s, all in 2.7 s, more or less


def steps(policy: Policy, facts: Facts) -> list[str]:
    return [step.backend for step in policy.plan(facts).steps]


def codes(policy: Policy, facts: Facts) -> dict[str, RefusalCode]:
    return {refusal.backend: refusal.code for refusal in policy.plan(facts).refusals}


@pytest.mark.parametrize(
    ("labels", "refused"),
    [
        ({"task": Task.EMBED}, {"cloud": RefusalCode.CAPABILITY}),
        ({"continues": True}, {"phone": RefusalCode.CAPABILITY, "cloud": RefusalCode.CAPABILITY}),
        ({"constrained": True}, {"phone": RefusalCode.CAPABILITY, "gateway": RefusalCode.CAPABILITY}),
        ({"logprobs": True}, dict.fromkeys(("phone", "gateway", "cloud"), RefusalCode.CAPABILITY)),
        ({"prompt_tokens": 4096}, {}),
        ({"prompt_tokens": 4097}, {"phone": RefusalCode.CONTEXT_LENGTH}),
        ({"prompt_tokens": 4097, "task": Task.COUNT_TOKENS}, {"cloud": RefusalCode.CAPABILITY}),
        (
            {"backends": ("gateway",)},
            {"phone": RefusalCode.CALLER_NARROWED, "cloud": RefusalCode.CALLER_NARROWED},
        ),
    ],
)
def test_what_a_backend_cannot_do_is_a_refusal_with_its_code(
    make_policy: MakePolicy, make_facts: MakeFacts, labels: dict[str, object], refused: dict[str, RefusalCode]
) -> None:
    assert codes(make_policy(), make_facts(**labels)) == refused


def test_labels_that_name_what_is_not_there_are_the_callers_mistake(
    make_policy: MakePolicy, make_facts: MakeFacts
) -> None:
    with pytest.raises(InvalidRequest, match="no data class 'helth' in the policy; did you mean 'health'"):
        make_policy().plan(make_facts(data_classes=("helth",)))
    with pytest.raises(InvalidRequest, match="no backend 'clowd'; did you mean 'cloud'"):
        make_policy().plan(make_facts(backends=("clowd",)))


def test_offline_refuses_what_needs_the_network_and_says_whether_being_online_would_help(
    make_policy: MakePolicy, make_facts: MakeFacts, terms: tuple[BackendTerms, ...]
) -> None:
    near = tuple(replace(each, works_offline=each.name == "gateway") for each in terms)
    policy = make_policy(backends=near)
    away = LinkFacts(LinkState.OFFLINE)
    assert steps(policy, make_facts(link=away)) == ["gateway", "phone"]
    assert codes(policy, make_facts(link=away)) == {"cloud": RefusalCode.OFFLINE}
    forced = replace(away, forced=True)
    assert steps(policy, make_facts(link=forced)) == ["phone"]
    nobody = policy.plan(make_facts(link=forced, constrained=True))
    assert (nobody.steps, nobody.online_would_help) == ((), True)
    assert "this device is offline" in nobody.reason
    assert not policy.plan(make_facts(link=forced, logprobs=True)).online_would_help
    stay = make_policy(RuleSettings("stay", 'connectivity.state == "offline"', only=("remote",)))
    assert stay.plan(make_facts(link=forced)).online_would_help


@pytest.mark.parametrize(
    ("code", "would_help"),
    [
        (RefusalCode.OFFLINE, True),
        (RefusalCode.INTERCEPTED, True),
        (RefusalCode.UNREACHABLE, False),
        (RefusalCode.QUARANTINED, False),
    ],
)
@pytest.mark.parametrize("link", [LinkState.ONLINE, LinkState.OFFLINE])
def test_being_online_helps_a_backend_that_waits_for_the_link_and_no_other(
    make_policy: MakePolicy, make_facts: MakeFacts, code: RefusalCode, would_help: bool, link: LinkState
) -> None:
    """Only the cloud can hold to a response format."""
    waiting = {"cloud": NotReady(code, "not now")}
    plan = make_policy().plan(make_facts(link=LinkFacts(link), not_ready=waiting, constrained=True))
    assert (plan.steps, plan.online_would_help) == ((), would_help)


def test_what_is_not_ready_is_left_out_with_its_own_sentence(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    resting = NotReady(RefusalCode.QUARANTINED, "its credentials are not accepted")
    plan = make_policy().plan(make_facts(not_ready={"cloud": resting}))
    assert [(each.backend, each.code, each.sentence) for each in plan.refusals] == [
        ("cloud", RefusalCode.QUARANTINED, "its credentials are not accepted")
    ]


def test_who_is_likely_in_time_comes_before_who_is_better(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(RuleSettings("keen", prefer=("cloud",)))
    plan = policy.plan(make_facts(predictions={"cloud": SLOW}, latency_budget=3.0))
    assert [step.backend for step in plan.steps] == ["gateway", "phone", "cloud"]
    assert (
        "likely to finish in time"
        in policy.plan(make_facts(predictions={"cloud": SLOW, "gateway": SLOW}, latency_budget=3.0)).reason
    )
    assert steps(policy, make_facts(predictions={"cloud": SLOW}, latency_budget=9.0)) == ["cloud", "gateway", "phone"]


def test_every_step_says_why_it_stands_there(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(RuleSettings("save", avoid=("device",)), RuleSettings("keen", prefer=("gateway",)))
    plan = policy.plan(make_facts())
    assert [step.reason for step in plan.steps] == [
        "before cloud: rule 'keen' prefers it",
        "after gateway: rule 'keen' prefers that one",
        "after cloud: rule 'save' avoids it",
    ]
    assert plan.reason == "gateway: before cloud: rule 'keen' prefers it"


def candidate(index: int, quality: float, latency: float, cost: float, likely: bool = True) -> Candidate:
    """One that takes so many seconds and US dollars."""
    price = Price(output=cost * 1e6)
    terms = BackendTerms(f"b{index}", DEVICE, frozenset(Task), remote=False, quality=quality, price=price)
    typical = LogNormal(math.log(latency), 0.3)
    labels = Labels(Task.GENERATE, max_output_tokens=1)
    standing = Standing(index, terms.name, terms, 1.0 - quality, strength=0, preferred_by="", avoided_by=None)
    return Candidate(index, standing, Prediction(typical, typical), labels, likely, kept=False)


@pytest.mark.parametrize(
    ("values", "order", "expected"),
    [
        # Quality within 0.05 of the best is equal; then the faster one.
        ([(0.80, 2.0, 0), (0.85, 3.0, 0), (0.70, 1.0, 0)], "quality latency", [0, 1, 2]),
        # Each is within reach of its neighbour, not of the best: no chain of equals.
        ([(0.80, 1.0, 0), (0.84, 2.0, 0), (0.88, 3.0, 0)], "quality latency", [1, 2, 0]),
        ([(0.5, 1.00, 3), (0.5, 1.09, 2), (0.5, 1.2, 1)], "latency cost", [1, 0, 2]),
        ([(0.5, 1.0, 0.0), (0.5, 1.0, 0.01)], "cost", [0, 1]),
        ([(0.5, 1.0, 1.0), (0.5, 1.0, 1.0)], "cost latency quality", [0, 1]),
        ([(0.1, 1.0, 1.0), (0.9, 1.0, 1.0)], "", [0, 1]),
    ],
)
def test_objectives_one_after_the_other_with_near_values_equal(
    values: list[tuple[float, float, float]], order: str, expected: list[int]
) -> None:
    candidates = [candidate(index, *each) for index, each in enumerate(values)]
    objectives = tuple(map(Objective, order.split()))
    assert [each.index for each in in_order(candidates, objectives)] == expected


@given(
    values=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.01, 5), st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    order=st.permutations(list(Objective)),
)
def test_the_order_is_total_and_puts_nobody_before_a_clearly_better_one(
    values: list[tuple[float, float, float, bool]], order: list[Objective]
) -> None:
    made = [candidate(index, *each) for index, each in enumerate(values)]
    ordered = in_order(made, tuple(order))
    assert sorted(each.index for each in ordered) == list(range(len(values)))
    assert [each.index for each in in_order(made, tuple(order))] == [each.index for each in ordered]
    measure = {Objective.QUALITY: "standing.shortfall", Objective.LATENCY: "latency", Objective.COST: "cost"}[order[0]]
    read = attrgetter(measure)
    first = ordered[0]
    for other in ordered[1:]:
        if other.likely == first.likely:
            bound = read(other) + 0.05 if order[0] is Objective.QUALITY else read(other) * 1.1
            assert read(first) <= bound + 1e-6


def test_the_last_resort_is_the_device_at_its_last_safe_moment(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    plan = make_policy().plan(make_facts(predictions={"phone": SLOW}, latency_budget=9.0, first_token_budget=2.5))
    last = plan.steps[-1]
    assert [step.last_resort for step in plan.steps] == [False, False, True]
    assert last.backend == "phone"
    assert last.starts_at == pytest.approx(min(9.0 - SLOW.total.quantile_95(), 2.5 - SLOW.first.quantile_95()))
    assert all(step.starts_at is None for step in plan.steps[:-1])


def test_the_last_resort_s_moment_follows_from_its_own_prediction(
    make_policy: MakePolicy, make_facts: MakeFacts
) -> None:
    policy = make_policy(defaults=DefaultsSettings(order=(Objective.LATENCY,)))
    labels: dict[str, Any] = {"backends": ("gateway", "cloud"), "latency_budget": 20.0}
    for quick, slow in (("gateway", "cloud"), ("cloud", "gateway")):
        plan = policy.plan(make_facts(predictions={slow: SLOW}, **labels))
        assert [step.backend for step in plan.steps] == [quick, slow]
        assert plan.steps[-1].starts_at == pytest.approx(20.0 - SLOW.total.quantile_95())


@pytest.mark.parametrize(
    ("latency_budget", "starts_at"),
    [(6.0, 6.0 - SLOW.total.quantile_95()), (3.5, 0.0), (2.0, None)],
)
def test_past_its_last_safe_moment_it_starts_now_if_worth_a_try(
    make_policy: MakePolicy, make_facts: MakeFacts, latency_budget: float, starts_at: float | None
) -> None:
    plan = make_policy().plan(make_facts(predictions={"phone": SLOW}, latency_budget=latency_budget))
    assert plan.steps[-1].backend == "phone"
    assert plan.steps[-1].starts_at == (None if starts_at is None else pytest.approx(starts_at))
    assert plan.steps[-1].last_resort == (starts_at is not None)


def test_nothing_runs_beside_a_request_that_must_not_run_twice(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    plan = make_policy().plan(make_facts(idempotent=False))
    assert [(step.last_resort, step.starts_at) for step in plan.steps] == [(False, None)] * 3


def test_no_last_resort_is_needed_for_the_first_step(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    preferred = make_policy(RuleSettings("home", prefer=("device",)))
    assert not any(step.last_resort for step in preferred.plan(make_facts()).steps)
    away = make_policy(RuleSettings("away", deny=("device",))).plan(make_facts())
    assert [(step.backend, step.last_resort) for step in away.steps] == [("cloud", False), ("gateway", True)]


def test_budgets_are_the_callers_else_the_defaults(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(defaults=DefaultsSettings(latency_budget=3.0, first_token_budget=0.8))  # type: ignore[arg-type]
    stream = policy.plan(make_facts(streaming=True))
    assert (stream.latency_budget, stream.first_token_budget) == (3.0, 0.8)
    whole = policy.plan(make_facts())
    assert (whole.latency_budget, whole.first_token_budget) == (3.0, None)
    asked = policy.plan(make_facts(latency_budget=1.0, first_token_budget=0.3))
    assert (asked.latency_budget, asked.first_token_budget) == (1.0, 0.3)
    assert make_policy().plan(make_facts(streaming=True)).latency_budget == 30.0
    for hopeless in (0.0, -1.0):
        assert {step.p_done for step in policy.plan(make_facts(latency_budget=hopeless)).steps} == {0.0}


@pytest.mark.parametrize(
    ("latency_budget", "first_token_budget", "matched"),
    [(10.0, None, True), (9.0, None, False), (9.0, 10.0, True), (10.0, 9.0, False)],
)
def test_for_a_condition_the_first_token_may_take_all_the_time_where_nobody_says_otherwise(
    make_policy: MakePolicy,
    make_facts: MakeFacts,
    latency_budget: float,
    first_token_budget: float | None,
    matched: bool,
) -> None:
    rule = RuleSettings("patient", when='request.first_token_budget >= duration("10s")', prefer=("cloud",))
    facts = make_facts(latency_budget=latency_budget, first_token_budget=first_token_budget)
    assert make_policy(rule).plan(facts).matched_rules == (("patient",) if matched else ())


def test_a_permit_is_judged_by_the_policy_in_force(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    old, facts = make_policy(), make_facts(data_classes=("public",))
    permits = [step.permit for step in old.plan(facts).steps]
    assert {permit.policy_version for permit in permits} == {old.version}
    assert [old.permits(permit, facts.labels) for permit in permits] == [None] * 3
    tighter = make_policy(data_classes={"public": DataClassSettings(("DE",))})
    assert tighter.version != old.version
    refused = {permit.backend for permit in permits if tighter.permits(permit, facts.labels) is not None}
    assert refused == {"cloud"}
    # The class is gone, and with it all that was known to be permitted.
    renamed = make_policy(data_classes={"open": DataClassSettings(("any",))}, default_data_class="open")
    assert {permit.backend for permit in permits if renamed.permits(permit, facts.labels)} == {"cloud", "gateway"}
    stranger = Permit("request-1", "elsewhere", old.version)
    assert old.permits(stranger, facts.labels) is not None
    narrowed = Labels(Task.GENERATE, ("public",), backends=("phone",))
    assert {permit.backend for permit in permits if old.permits(permit, narrowed)} == {"cloud", "gateway"}


def test_the_version_follows_what_decides(
    make_policy: MakePolicy, terms: tuple[BackendTerms, ...], tmp_path: Path
) -> None:
    assert make_policy().version == make_policy().version
    assert re.fullmatch("[0-9a-f]{12}", make_policy().version)
    changed = [
        make_policy(RuleSettings("r", deny=("cloud",))),
        make_policy(sites={"praxis": SiteSettings("DE")}),
        make_policy(backends=(*terms[:2], replace(terms[2], quality=0.9))),
    ]
    assert len({make_policy().version, *(policy.version for policy in changed)}) == 4
    # Sets are printed in another order in every process.
    script = (
        "import json; from importlib.resources import files; from edgewise.policies import compile_policy;"
        "from edgewise.policies.places import Places; from edgewise.policies.settings import *;"
        "data = json.loads((files('edgewise.policies') / 'data/places.json').read_text('utf-8'));"
        "settings = PolicySettings(data_classes={'a': DataClassSettings(('EU', 'CH'))});"
        "print(compile_policy(settings, [], Places.from_data(data))[0].version)"
    )
    run = [
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert run[0] == run[1]


def test_what_was_remembered_changes_nothing(
    make_policy: MakePolicy, make_facts: MakeFacts, terms: tuple[BackendTerms, ...]
) -> None:
    rules = (
        RuleSettings("long", "request.prompt_tokens > 100", prefer=("gateway",)),
        RuleSettings("late", "request.latency_budget < duration('2s')", avoid=("cloud",)),
        RuleSettings("soon", "request.first_token_budget < duration('1s')", set=SetSettings(hedge=False)),
        RuleSettings("kiosk", '"app" in request.tags', deny=("gateway",)),
        RuleSettings("health", 'request.data_class == "health"', prefer=("phone",)),
        RuleSettings("careful", "100 / request.prompt_tokens > 1", set=SetSettings(max_cost=0.001)),
    )
    backends = (replace(terms[0], models=frozenset({"a"})), replace(terms[1], quality=0.86), terms[2])
    settings: dict[str, Any] = {"backends": backends, "tags": {"app": ("kiosk",)}}
    remembering = make_policy(*rules, **settings)
    chance = random.Random(3)
    labels: dict[str, list[Any]] = {
        "task": list(Task),
        "data_classes": [(), ("public",), ("personal",), ("health",), ("health", "public")],
        "latency_budget": [None, 1.0, 2.0, 3.0],
        "first_token_budget": [None, 0.5, 1.5],
        "max_output_tokens": [0, 200],
        "prompt_tokens": [0, 99, 100, 101, 5000],
        "priority": list(Priority),
        "tags": [{}, {"app": "kiosk"}, {"app": "?"}],
        "residency": [None, Residency(process_in=PlaceSet.of([Place("DE")]))],
        "backends": [(), ("gateway", "phone")],
        "model": ["", "a", "b"],
        **{name: [False, True] for name in ("streaming", "continues", "constrained", "logprobs")},
        **{name: [False, True] for name in ("idempotent", "unclassed")},
    }
    assert labels.keys() == {field.name for field in fields(Labels)}
    usual = make_facts().labels
    for _ in range(600):
        # Mostly as usual, so that most of what is remembered is met again.
        some = {name: chance.choice(values) for name, values in labels.items() if chance.random() < 0.25}
        predictions = {each.name: chance.choice([QUICK, SLOW]) for each in terms}
        facts = replace(
            make_facts(link=LinkFacts(chance.choice(list(LinkState))), predictions=predictions),
            labels=replace(usual, **some),
            conversation_backend=chance.choice([None, "phone", "cloud"]),
        )
        assert remembering.plan(facts) == make_policy(*rules, **settings).plan(facts)


def test_what_is_remembered_stays_within_bounds() -> None:
    memory = Memory[int, str](3)
    assert [memory.keep(at, str(at)) for at in range(3)] == ["0", "1", "2"]
    assert list(memory) == [0, 1, 2]
    memory.keep(3, "3")
    assert memory == {3: "3"}


def test_only_policies_make_permits() -> None:
    package = Path(edgewise.policies.__file__).resolve().parent
    house = [
        path for name in ("core", "backends", "router", "protos") for path in (package.parent / name).rglob("*.py")
    ]
    assert len(house) > 20
    assert [path.name for path in house if _makes_permits(path)] == []
    assert [path.name for path in package.rglob("*.py") if _makes_permits(path)] == ["planner.py"]


def _makes_permits(path: Path) -> bool:
    return re.search(r"(?<!class )\bPermit\(", path.read_text("utf-8")) is not None
