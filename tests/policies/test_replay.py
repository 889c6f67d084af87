"""Recorded decisions under another policy: the sums of what changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgewise.core.request import Task
from edgewise.core.settings import Seconds
from edgewise.policies import Policy
from edgewise.policies.facts import BackendTerms, Facts, LogNormal, Prediction
from edgewise.policies.replay import Changes, Choice, Totals, judge, quantile
from edgewise.policies.settings import Objective, RuleSettings, SetSettings

MakePolicy = Callable[..., Policy]
MakeFacts = Callable[..., Facts]


def test_a_verdict_is_the_first_choice_with_what_its_tokens_cost(
    make_policy: MakePolicy, make_facts: MakeFacts
) -> None:
    facts = make_facts(predictions={"cloud": Prediction(LogNormal(-2.0, 0.1), LogNormal(0.0, 0.1))})
    verdict = judge(make_policy(), facts, 1_000_000, 100_000)
    assert verdict.choice is not None
    assert (verdict.backend, verdict.choice.seconds) == ("cloud", 1.0)
    assert verdict.choice.in_time == pytest.approx(1.0)
    assert verdict.choice.cost == pytest.approx(2.0)
    assert verdict.order == ("cloud", "gateway", "phone")
    second = judge(make_policy(RuleSettings("no", deny=("cloud",))), facts, 1_000_000, 0)
    assert second.choice is not None
    assert (second.choice.backend, second.choice.cost) == ("gateway", 0.0)
    nobody = judge(make_policy(RuleSettings("no", deny=("device", "remote"))), facts, 1, 1)
    assert (nobody.choice, nobody.backend, nobody.order) == (None, None, ())


def test_counting_costs_nothing(
    make_policy: MakePolicy, make_facts: MakeFacts, terms: tuple[BackendTerms, ...]
) -> None:
    policy = make_policy(backends=(*terms[:2], replace(terms[2], tasks=frozenset(Task))))
    for task, cost in ((Task.GENERATE, 1.0), (Task.COUNT_TOKENS, 0.0)):
        choice = judge(policy, make_facts(task=task, backends=("cloud",)), 1_000_000, 0).choice
        assert choice is not None
        assert (choice.backend, choice.cost) == ("cloud", cost)


def test_totals_add_up() -> None:
    totals = Totals()
    assert (totals.nobody, totals.cost, totals.likely_in_time) == (0, 0.0, None)
    for choice in (Choice("a", 1.0, 0.5, 0.25), Choice("a", 3.0, 1.0, 0.5), None, Choice("b", 2.0, 0.0, 0.0)):
        totals.add(choice)
    assert (totals.first, totals.nobody, totals.cost) == ({"a": 2, "b": 1}, 1, 0.75)
    assert (totals.seconds, totals.likely_in_time) == ([1.0, 3.0, 2.0], 0.5)


def test_changes_are_told_apart(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    plain = make_policy()
    facts = make_facts()

    def changes(old: Policy, new: Policy, times: int = 1) -> Changes:
        found = Changes()
        for _ in range(times):
            found.add(judge(old, facts, 1, 1), judge(new, facts, 1, 1))
        return found

    same = changes(plain, plain)
    assert (same.decisions, same.moved, same.opened, same.closed, same.reordered, same.handled) == (1, {}, {}, {}, 0, 0)

    denied = make_policy(RuleSettings("no cloud", deny=("cloud",)))
    closed = changes(plain, denied, times=2)
    assert closed.decisions == 2
    assert {key: (move.example, move.count) for key, move in closed.moved.items()} == {
        ("cloud", "gateway"): ("request-1", 2)
    }
    assert {key: (move.why, move.count) for key, move in closed.closed.items()} == {
        "cloud": ("rule 'no cloud' denies it", 2)
    }
    assert closed.opened == {}
    opened = changes(denied, plain)
    assert {key: (move.why, move.count) for key, move in opened.opened.items()} == {
        "cloud": ("before: rule 'no cloud' denies it", 1)
    }
    assert opened.closed == {}

    reordered = changes(plain, make_policy(RuleSettings("later", avoid=("gateway",))))
    assert (reordered.moved, reordered.reordered, reordered.handled) == ({}, 1, 0)
    moved = changes(plain, make_policy(RuleSettings("home", prefer=("phone",))))
    assert (list(moved.moved), moved.reordered) == ([("cloud", "phone")], 0)
    assert moved.moved["cloud", "phone"].why.startswith("phone: before cloud: rule 'home' prefers it")


def test_other_handling_is_counted(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    plain, facts = make_policy(), make_facts()
    for handling in (SetSettings(hedge=False), SetSettings(latency_budget=Seconds(2.0))):
        found = Changes()
        found.add(judge(plain, facts, 1, 1), judge(make_policy(RuleSettings("r", set=handling)), facts, 1, 1))
        assert (found.handled, found.reordered, found.moved) == (1, 0, {})
    found = Changes()
    cheap = make_policy(RuleSettings("r", set=SetSettings(order=(Objective.QUALITY,))))
    found.add(judge(plain, facts, 1, 1), judge(cheap, facts, 1, 1))
    assert found.handled == 0


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 3.0, 4.0, 4.0]
