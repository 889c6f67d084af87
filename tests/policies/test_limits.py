"""Where one thing ends and the next begins: what is just enough, and what counts where nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import edgewise.policies
from edgewise.core.decision import RefusalCode
from edgewise.core.problem import Severity
from edgewise.core.request import Labels, Task
from edgewise.core.settings import ByteSize, Seconds
from edgewise.policies import Policy, compile_policy
from edgewise.policies.compilation import MOST_BACKENDS, MOST_CLASSES, MOST_PROMISES, MOST_RULES
from edgewise.policies.facts import (
    BackendTerms,
    DeviceFacts,
    Facts,
    LinkFacts,
    LinkState,
    LogNormal,
    Prediction,
    SpendingFacts,
)
from edgewise.policies.places import Places
from edgewise.policies.planner import Policy as PolicyClass
from edgewise.policies.settings import (
    AssertionSettings,
    DataClassSettings,
    DefaultsSettings,
    NeverSettings,
    Objective,
    OfflineSettings,
    PolicySettings,
    ResilienceSettings,
    RetrySettings,
    RuleSettings,
    SetSettings,
)

MakePolicy = Callable[..., Policy]
MakeFacts = Callable[..., Facts]
SLOW = Prediction(LogNormal(0.0, 0.3), LogNormal(1.0, 0.3))
SURE = Prediction(LogNormal(-9.0, 0.1), LogNormal(-9.0, 0.1))


def steps(policy: Policy, facts: Facts) -> list[str]:
    return [step.backend for step in policy.plan(facts).steps]


def test_what_is_not_known_counts_as_it_is_documented() -> None:
    assert DeviceFacts() == DeviceFacts(100, False, True, 0, 0, "nominal")
    assert SpendingFacts() == SpendingFacts(0, 0)
    assert LinkFacts() == LinkFacts(LinkState.ONLINE, True, 0, 0.0, False)
    assert Labels(Task.GENERATE).idempotent
    assert edgewise.policies.Policy is PolicyClass
    assert edgewise.policies.compile_policy is compile_policy
    with pytest.raises(AttributeError, match="no attribute 'planer'"):
        edgewise.policies.planer  # noqa: B018


def test_a_ceiling_may_be_reached(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    facts = make_facts(prompt_tokens=1000, max_output_tokens=100)  # at the cloud: 0.001 + 0.001 dollars
    for ceiling, refused in ((0.002, []), (0.0019, [RefusalCode.PRICE])):
        policy = make_policy(RuleSettings("cheap", set=SetSettings(max_cost=ceiling)))
        assert [each.code for each in policy.plan(facts).refusals] == refused
    counting = replace(facts, labels=replace(facts.labels, task=Task.COUNT_TOKENS))
    dear = make_policy(RuleSettings("cheap", set=SetSettings(max_cost=0.0)))
    assert RefusalCode.PRICE not in [each.code for each in dear.plan(counting).refusals]
    assert (dear.cost("cloud", 1000, 100), dear.cost("gateway", 1000, 100)) == (0.002, 0.0)


def test_of_two_ceilings_the_lower_holds_whichever_comes_last(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    low, high = (RuleSettings(name, set=SetSettings(max_cost=cost)) for name, cost in (("a", 0.001), ("b", 0.1)))
    for rules in ((low, high), (high, low)):
        plan = make_policy(*rules).plan(make_facts(prompt_tokens=2000))
        assert [each.backend for each in plan.refusals] == ["cloud"]


def test_only_a_backend_with_the_model_may_run_it(
    make_policy: MakePolicy, make_facts: MakeFacts, terms: tuple[BackendTerms, ...]
) -> None:
    policy = make_policy(backends=(replace(terms[0], models=frozenset({"triage", "ocr"})), terms[1]))
    facts = replace(make_facts(task=Task.INFER), backends=make_facts().backends[:2])
    for model, refused in (("", []), ("ocr", []), ("Zebulon", [("phone", RefusalCode.CAPABILITY)])):
        plan = policy.plan(replace(facts, labels=replace(facts.labels, model=model)))
        assert [(each.backend, each.code) for each in plan.refusals] == refused
        assert "Zebulon" not in repr(plan.refusals)
        assert all(each.sentence.endswith("it has ocr, triage") for each in plan.refusals)


def test_the_reserve_may_start_at_once_at_the_very_last_safe_moment(
    make_policy: MakePolicy, make_facts: MakeFacts
) -> None:
    exactly = SLOW.total.quantile_95()
    plan = make_policy().plan(make_facts(predictions={"phone": SLOW}, latency_budget=exactly))
    assert (plan.steps[-1].backend, plan.steps[-1].starts_at) == ("phone", 0.0)
    late = replace(SLOW, total=LogNormal(1.0, 0.3))
    for known, starts_at in ((True, None), (False, 0.0)):  # a guess denies nothing
        guess = replace(late, known=known)
        plan = make_policy().plan(make_facts(predictions={"phone": guess}, latency_budget=2.0))
        assert plan.steps[-1].starts_at == starts_at


def test_streams_are_ordered_by_their_first_token(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(defaults=DefaultsSettings(order=(Objective.LATENCY,)))
    eager = Prediction(LogNormal(-3.0, 0.1), LogNormal(1.0, 0.1))
    thorough = Prediction(LogNormal(0.0, 0.1), LogNormal(0.5, 0.1))
    facts = make_facts(
        predictions={"phone": eager, "gateway": thorough, "cloud": thorough}, backends=("phone", "gateway")
    )
    assert steps(policy, facts) == ["gateway", "phone"]
    assert policy.plan(facts).steps[1].reason == "after gateway: slower"
    assert steps(policy, replace(facts, labels=replace(facts.labels, streaming=True))) == ["phone", "gateway"]


@pytest.mark.parametrize(
    ("order", "first", "second"),
    [
        (Objective.QUALITY, "cloud: before gateway: higher quality", "after cloud: lower quality"),
        (Objective.COST, "phone: before gateway: equal otherwise, and earlier in the configuration", None),
    ],
)
def test_reasons_name_the_objective(
    make_policy: MakePolicy, make_facts: MakeFacts, order: Objective, first: str, second: str | None
) -> None:
    plan = make_policy(defaults=DefaultsSettings(order=(order,))).plan(make_facts(max_output_tokens=10))
    assert plan.reason == first
    assert plan.steps[1].reason == (second or "after phone: equal otherwise, and later in the configuration")
    if order is Objective.COST:
        assert plan.steps[2].reason == "after gateway: costs more"


def test_who_has_the_conversation_comes_first_and_says_so(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    plan = make_policy().plan(replace(make_facts(), conversation_backend="phone"))
    assert [(step.backend, step.reason) for step in plan.steps] == [
        ("phone", "before cloud: it has the conversation so far"),
        ("cloud", "after phone: that one has the conversation so far"),
        ("gateway", "after cloud: lower quality"),
    ]


def test_chances_are_told_where_they_decide(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy()
    for budget in (3.0, 2.5):  # the order is remembered, the chance is not
        facts = make_facts(predictions={"cloud": SLOW}, latency_budget=budget, backends=("cloud", "phone"))
        first, second = policy.plan(facts).steps
        assert first.reason == f"before cloud: likely to finish in time ({first.p_done:.0%})"
        assert second.reason == f"after phone: less likely to finish in time ({second.p_done:.0%})"
        assert 0.0 < second.p_done < 0.95


@pytest.mark.parametrize(("known", "budget", "likely"), [(True, 1.5, False), (False, 1.5, True), (False, 0.5, False)])
def test_a_guess_need_only_be_possible(
    make_policy: MakePolicy, make_facts: MakeFacts, known: bool, budget: float, likely: bool
) -> None:
    rough = Prediction(LogNormal(0.4, 0.4), LogNormal(0.4, 0.4), known=known)
    plan = make_policy().plan(make_facts(predictions={"cloud": rough, "gateway": SURE}, latency_budget=budget))
    assert (plan.steps[0].backend == "cloud") is likely


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert RetrySettings() == RetrySettings(3, Seconds(0.05), Seconds(2.0))
    offline = OfflineSettings()
    assert (offline.queue_ttl, offline.results_ttl) == (86_400.0, 604_800.0)
    assert (offline.max_entries, offline.max_bytes, offline.max_sends) == (10_000, 64_000_000, 5)
    assert DefaultsSettings() == DefaultsSettings(
        Seconds(30.0), None, (Objective.QUALITY, Objective.LATENCY, Objective.COST)
    )


def judged(settings: PolicySettings, terms: tuple[BackendTerms, ...], places: Places) -> list[tuple[Any, ...]]:
    _, problems = compile_policy(settings, terms, places)
    return [each.path for each in problems if each.severity is Severity.ERROR]


PUBLIC = {"public": DataClassSettings(("any",))}


@pytest.mark.parametrize(
    ("settings", "mistaken"),
    [
        ({"resilience": ResilienceSettings(retry=RetrySettings(max_attempts=1))}, []),
        (
            {"resilience": ResilienceSettings(retry=RetrySettings(max_attempts=0))},
            [("resilience", "retry", "max_attempts")],
        ),
        ({"resilience": ResilienceSettings(retry=RetrySettings(1, Seconds(2.0), Seconds(2.0)))}, []),
        (
            {"resilience": ResilienceSettings(retry=RetrySettings(1, Seconds(2.0), Seconds(1.9)))},
            [("resilience", "retry", "max_backoff")],
        ),
        ({"offline": OfflineSettings(max_entries=1, max_bytes=ByteSize(1), max_sends=1)}, []),
        ({"offline": OfflineSettings(max_entries=0)}, [("offline", "max_entries")]),
        ({"offline": OfflineSettings(max_bytes=ByteSize(0))}, [("offline", "max_bytes")]),
        ({"offline": OfflineSettings(max_sends=0)}, [("offline", "max_sends")]),
        ({"offline": OfflineSettings(queue_ttl=Seconds(0.0))}, [("offline", "queue_ttl")]),
        ({"offline": OfflineSettings(results_ttl=Seconds(0.0))}, [("offline", "results_ttl")]),
        ({"defaults": DefaultsSettings(latency_budget=Seconds(0.001))}, []),
        ({"defaults": DefaultsSettings(first_token_budget=Seconds(0.0))}, [("defaults", "first_token_budget")]),
        ({"rules": (RuleSettings("r", set=SetSettings(max_cost=0.0)),)}, []),
        ({"rules": (RuleSettings("r", set=SetSettings(max_cost=-0.1)),)}, [("rules", 0, "set", "max_cost")]),
        (
            {"rules": (RuleSettings("r", set=SetSettings(order=(Objective.COST, Objective.COST))),)},
            [("rules", 0, "set", "order", 1)],
        ),
        (
            {"rules": (RuleSettings("r", set=SetSettings(latency_budget=Seconds(0.0))),)},
            [("rules", 0, "set", "latency_budget")],
        ),
    ],
)
def test_the_least_that_is_of_use_is_enough(
    places: Places, terms: tuple[BackendTerms, ...], settings: dict[str, Any], mistaken: list[tuple[Any, ...]]
) -> None:
    assert (
        judged(PolicySettings(data_classes=PUBLIC, default_data_class="public", **settings), terms, places) == mistaken
    )


def test_a_policy_has_as_much_as_it_may_and_no_more(places: Places, terms: tuple[BackendTerms, ...]) -> None:
    def rules(count: int) -> tuple[RuleSettings, ...]:
        return tuple(RuleSettings(f"r{at}", avoid=("cloud",)) for at in range(count))

    def classes(count: int) -> dict[str, DataClassSettings]:
        return {f"c{at}": DataClassSettings(("any",)) for at in range(count)}

    def backends(count: int) -> tuple[BackendTerms, ...]:
        return tuple(replace(terms[1], name=f"b{at}") for at in range(count))

    assert (MOST_CLASSES, MOST_BACKENDS, MOST_RULES, MOST_PROMISES) == (100, 100, 1000, 100)  # as docs/policy.md says
    promise = AssertionSettings(NeverSettings("c0", ("FR",)))
    for more in (0, 1):
        policy = PolicySettings(data_classes=classes(MOST_CLASSES + more))
        assert judged(policy, terms, places) == [("data_classes",)] * more
        assert judged(PolicySettings(rules=rules(MOST_RULES + more)), terms, places) == [("rules",)] * more
        assert judged(PolicySettings(), backends(MOST_BACKENDS + more), places) == [()] * more
        promises = PolicySettings(
            data_classes={"c0": DataClassSettings(("DE",))}, assert_=(promise,) * (MOST_PROMISES + more)
        )
        assert judged(promises, terms, places) == [("assert",)] * more
