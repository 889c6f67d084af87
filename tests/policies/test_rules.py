"""Rules: what they do together, against a naive reference, and that they only narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.core.decision import RefusalCode
from edgewise.core.settings import Seconds
from edgewise.policies import Policy
from edgewise.policies.facts import BackendTerms, Facts
from edgewise.policies.plan import StreamFailover
from edgewise.policies.settings import Objective, RuleSettings, SetSettings

MEANS = {
    "phone": {"phone"},
    "gateway": {"gateway"},
    "cloud": {"cloud"},
    "metered": {"cloud"},
    "remote": {"gateway", "cloud"},
    "device": {"phone"},
}
targets = st.lists(st.sampled_from(sorted(MEANS)), max_size=2).map(tuple)
written_rules = st.builds(
    RuleSettings,
    name=st.uuids().map(str),
    when=st.sampled_from([None, "request.prompt_tokens > 10", "request.prompt_tokens > 99", "10 / 0 > 1"]),
    prefer=targets,
    avoid=targets,
    deny=targets,
    only=st.none() | targets,
    set=st.just(SetSettings(latency_budget=None)),
)
unchanging_fixtures = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def meaning(names: tuple[str, ...]) -> set[str]:
    return set().union(*(MEANS[name] for name in names))


@unchanging_fixtures
@given(rules=st.lists(written_rules, max_size=5), prompt_tokens=st.sampled_from([0, 50, 100]))
def test_rules_agree_with_the_reference(
    make_policy: Callable[..., Policy],
    make_facts: Callable[..., Facts],
    rules: list[RuleSettings],
    prompt_tokens: int,
) -> None:
    allowed, avoided = {"phone", "gateway", "cloud"}, set[str]()
    strength = dict.fromkeys(allowed, 0)
    for at, rule in enumerate(rules, start=1):
        fails = rule.when == "10 / 0 > 1"
        holds = rule.when is None or (not fails and prompt_tokens > int(rule.when.rpartition(" ")[2]))
        if holds or fails:
            allowed -= meaning(rule.deny)
            if rule.only is not None:
                allowed &= meaning(rule.only)
        if holds:
            avoided |= meaning(rule.avoid)
            strength |= dict.fromkeys(meaning(rule.prefer), at)
    # All are quick; the better quality comes first.
    quality = {"cloud": 3, "gateway": 2, "phone": 1}
    expected = sorted(allowed, key=lambda name: (name in avoided, -strength[name], -quality[name]))
    plan = make_policy(*rules).plan(make_facts(prompt_tokens=prompt_tokens))
    assert [step.backend for step in plan.steps] == expected
    assert {step.backend for step in plan.steps if step.avoided} == avoided & allowed


@unchanging_fixtures
@given(
    rules=st.lists(written_rules, max_size=4),
    more=written_rules,
    at=st.integers(0, 4),
    data_class=st.sampled_from(["public", "health"]),
)
def test_one_more_rule_never_reaches_more(
    make_policy: Callable[..., Policy],
    make_facts: Callable[..., Facts],
    rules: list[RuleSettings],
    more: RuleSettings,
    at: int,
    data_class: str,
) -> None:
    facts = make_facts(prompt_tokens=50, data_classes=(data_class,))
    before = {step.backend for step in make_policy(*rules).plan(facts).steps}
    after = {step.backend for step in make_policy(*rules[:at], more, *rules[at:]).plan(facts).steps}
    assert after <= before
    assert after <= ({"phone", "gateway"} if data_class == "health" else {"phone", "gateway", "cloud"})


def test_every_refusal_has_the_rule_that_made_it(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    policy = make_policy(RuleSettings("no meters", deny=("metered",)), RuleSettings("at home", only=("device",)))
    refusals = {refusal.backend: refusal for refusal in policy.plan(make_facts()).refusals}
    assert (refusals["cloud"].code, refusals["cloud"].sentence) == (RefusalCode.DENIED, "rule 'no meters' denies it")
    assert refusals["gateway"].code is RefusalCode.NOT_SELECTED
    assert "'at home'" in refusals["gateway"].sentence


def test_the_last_set_wins_the_caller_wins_over_it_and_costs_take_the_lower(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    first = SetSettings(
        latency_budget=Seconds(5.0), first_token_budget=Seconds(0.5), max_cost=0.001, order=(Objective.COST,)
    )
    last = SetSettings(latency_budget=Seconds(7.0), max_cost=0.5, stream_failover=StreamFailover.NONE)
    policy = make_policy(RuleSettings("first", set=first), RuleSettings("last", set=last))
    plan = policy.plan(make_facts(streaming=True, max_output_tokens=1000))
    assert (plan.latency_budget, plan.first_token_budget) == (7.0, 0.5)
    assert plan.stream_failover is StreamFailover.NONE
    assert [step.backend for step in plan.steps] == ["phone", "gateway"]
    assert [refusal.code for refusal in plan.refusals] == [RefusalCode.PRICE]
    plan = policy.plan(make_facts(streaming=True, latency_budget=1.5, first_token_budget=0.2))
    assert (plan.latency_budget, plan.first_token_budget) == (1.5, 0.2)


@pytest.mark.parametrize("key", ["prefer", "avoid", "deny", "only"])
def test_an_unknown_name_in_a_list_is_a_mistake(places: object, terms: tuple[BackendTerms, ...], key: str) -> None:
    from edgewise.policies import compile_policy
    from edgewise.policies.settings import PolicySettings

    lists: dict[str, Any] = {key: ("phone", "clowd")}
    rule = replace(RuleSettings("r"), **lists)
    policy, problems = compile_policy(PolicySettings(rules=(rule,)), terms, places)  # type: ignore[arg-type]
    assert policy is None
    assert [(problem.path, problem.mend) for problem in problems if problem.severity == "error"] == [
        (("rules", 0, key, 1), "did you mean 'cloud'?")
    ]
