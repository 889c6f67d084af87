"""What is judged when a policy is read: promises that it breaks, groups that expired, words that are in vain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from edgewise.core.place import Evidence
from edgewise.core.problem import Problem, Severity
from edgewise.policies import compile_policy
from edgewise.policies.facts import BackendTerms
from edgewise.policies.gaps import Gaps
from edgewise.policies.places import Places
from edgewise.policies.plan import StreamFailover
from edgewise.policies.settings import (
    AssertionSettings,
    DataClassSettings,
    EncryptionSettings,
    GroupSettings,
    NeverSettings,
    Objective,
    OfflineSettings,
    PolicySettings,
    RuleSettings,
    SetSettings,
)

Judge = Callable[..., list[Problem]]

CLASSES = {
    "public": DataClassSettings(process_in=("any",)),
    "personal": DataClassSettings(process_in=("EU",), operators=("EU", "US")),
    "health": DataClassSettings(process_in=("DE",)),
}


@pytest.fixture
def judge(places: Places, terms: tuple[BackendTerms, ...]) -> Judge:
    """The problems of a policy with these rules and settings, over a phone, a gateway and a cloud."""

    def judge(*rules: RuleSettings, **settings: Any) -> list[Problem]:
        settings = {"data_classes": CLASSES, "default_data_class": "public", **settings}
        policy, problems = compile_policy(PolicySettings(rules=rules, **settings), terms, places, date(2026, 7, 1))
        assert (policy is None) is any(each.severity is Severity.ERROR for each in problems)
        return list(problems)

    return judge


def never(data_class: str, *reaches: str) -> tuple[AssertionSettings, ...]:
    return (AssertionSettings(NeverSettings(data_class, reaches)),)


# --- promises


@pytest.mark.parametrize(
    ("data_class", "reaches", "backend"),
    [
        ("health", ("US",), None),
        ("health", ("NL", "any"), None),
        ("health", ("DE",), "gateway"),
        ("health", ("EU",), "gateway"),
        ("health", ("remote",), "gateway"),
        ("personal", ("US",), "cloud"),
        ("personal", ("NL",), "cloud"),
        ("personal", ("FR", "any"), None),
    ],
)
def test_a_promise_is_broken_by_each_backend_that_may_take_the_class_there(
    judge: Judge, data_class: str, reaches: tuple[str, ...], backend: str | None
) -> None:
    problems = judge(assert_=never(data_class, *reaches))
    assert [each.path for each in problems] == ([] if backend is None else [("assert", 0, "never")])
    assert all(repr(backend) in each.sentence and each.severity is Severity.ERROR for each in problems)


def test_a_backend_that_may_be_anywhere_may_be_in_each_place(places: Places) -> None:
    unknown = BackendTerms("unknown", _anywhere(), frozenset(), remote=True)
    for reaches in (("FR",), ("any",)):
        settings = PolicySettings(data_classes=CLASSES, default_data_class="public", assert_=never("public", *reaches))
        policy, problems = compile_policy(settings, [unknown], places)
        assert policy is None
        assert "process_in is not bound" in problems[-1].sentence


def _anywhere() -> Any:
    from edgewise.core.place import Location

    return Location()


def test_rules_help_to_keep_a_promise_where_they_always_apply_to_the_class(judge: Judge) -> None:
    promise = never("personal", "US")
    for when in (
        'request.data_class == "personal"',
        '"personal" in request.data_classes',
        None,
        "request.data_class != 'public'",
    ):
        assert not [
            each
            for each in judge(RuleSettings("no", when=when, deny=("cloud",)), assert_=promise)
            if each.path[0] == "assert"
        ], when
    pair = (
        RuleSettings("metered", when="connectivity.metered", deny=("cloud",)),
        RuleSettings("free", when="!connectivity.metered", only=("phone", "gateway")),
    )
    assert judge(*pair, assert_=promise) == []


def test_a_broken_promise_says_what_would_have_to_hold(judge: Judge) -> None:
    rule = RuleSettings("no", when='connectivity.metered && request.priority != "high"', deny=("cloud",))
    (problem,) = judge(rule, assert_=never("personal", "US"))
    assert problem.sentence.endswith("(operators [US]), where not (connectivity.metered)")
    only_alone = RuleSettings("no", when='request.data_classes == ["personal"]', deny=("cloud",))
    assert judge(only_alone, assert_=never("personal", "US")), "together with another class it may still go"


@pytest.mark.parametrize(
    ("promise", "path"),
    [
        (never("healht", "US"), ("data_class",)),
        (never("health"), ("reaches",)),
        (never("health", "US", "USA"), ("reaches", 1)),
        (never("public", "US", "USA"), ("reaches", 1)),
    ],
)
def test_a_promise_that_says_nothing_is_a_mistake(judge: Judge, promise: Any, path: tuple[str | int, ...]) -> None:
    (problem,) = judge(assert_=promise)
    assert (problem.path, problem.severity) == (("assert", 0, "never", *path), Severity.ERROR)


# --- what the policy is judged without


def test_beside_mistakes_elsewhere_the_policy_is_judged_whole_and_not_made(
    places: Places, terms: tuple[BackendTerms, ...]
) -> None:
    settings = PolicySettings(data_classes=CLASSES, default_data_class="public", assert_=never("health", "DE"))
    for promises, sentences in ((settings.assert_, ["the class 'health' may reach the backend 'gateway'"]), ((), [])):
        written = replace(settings, assert_=promises)
        policy, problems = compile_policy(written, terms, places, gaps=Gaps(elsewhere=True))
        assert policy is None
        assert [each.sentence.partition(" (")[0] for each in problems] == sentences


@pytest.mark.parametrize(
    ("encryption", "good"),
    [
        (EncryptionSettings(key_env="KEY"), True),
        (EncryptionSettings(keyring="outbox"), True),
        (EncryptionSettings(), False),
        (EncryptionSettings(key_env="KEY", keyring="outbox"), False),
    ],
)
def test_an_outbox_s_key_stands_in_one_place(judge: Judge, encryption: EncryptionSettings, good: bool) -> None:
    problems = judge(offline=OfflineSettings(encryption=encryption))
    assert [each.path for each in problems] == ([] if good else [("offline", "encryption")])


# --- groups


def group(*members: str, as_of: str = "2026-01-01", until: str | None = None) -> dict[str, GroupSettings]:
    return {"adequate": GroupSettings(members, as_of, "the list of the commission", until)}


def test_a_policy_s_own_group_means_its_members(judge: Judge) -> None:
    lists = {"public": CLASSES["public"], "x": DataClassSettings(("adequate",), operators=("adequate",))}
    assert judge(data_classes=lists, groups=group("NL", "US"), assert_=never("x", "FR")) == []
    (problem,) = judge(data_classes=lists, groups=group("NL", "US"), assert_=never("x", "NL"))
    assert "'cloud'" in problem.sentence


@pytest.mark.parametrize(("until", "expired"), [("2026-06-30", True), ("2026-07-01", False), (None, False)])
def test_an_expired_group_is_a_warning(judge: Judge, until: str | None, expired: bool) -> None:
    problems = judge(groups=group("NL", until=until))
    assert [(each.path, each.severity) for each in problems] == (
        [(("groups", "adequate", "until"), Severity.WARNING)] if expired else []
    )


@pytest.mark.parametrize(("today", "expired"), [(date(2031, 12, 27), False), (date(2031, 12, 28), True)])
def test_a_known_group_that_expired_is_a_warning_where_a_class_names_it(
    places: Places, terms: tuple[BackendTerms, ...], today: date, expired: bool
) -> None:
    lists = {"public": CLASSES["public"], "staff": DataClassSettings(("EU", "EU_ADEQUATE"), operators=("EU",))}
    _, problems = compile_policy(PolicySettings(data_classes=lists, default_data_class="staff"), terms, places, today)
    assert [each.path for each in problems if "could be relied upon until 2031-12-27" in each.sentence] == (
        [("data_classes", "staff", "process_in", 1)] if expired else []
    )


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        (group("NL", "UK"), ("adequate", "members", 1)),
        (group("NL", as_of="yesterday"), ("adequate", "as_of")),
        (group("NL", until="2026-13-01"), ("adequate", "until")),
        ({"EU": GroupSettings(("US",), "2026-01-01", "nowhere")}, ("EU",)),
        ({"any": GroupSettings(("US",), "2026-01-01", "nowhere")}, ("any",)),
        ({"site:x": GroupSettings(("US",), "2026-01-01", "nowhere")}, ("site:x",)),
    ],
)
def test_a_group_that_cannot_be_meant_is_a_mistake(judge: Judge, groups: Any, path: tuple[str | int, ...]) -> None:
    (problem,) = judge(groups=groups)
    assert (problem.path, problem.severity) == (("groups", *path), Severity.ERROR)


# --- in vain


def warned(problems: list[Problem]) -> list[tuple[str | int, ...]]:
    assert all(each.severity is Severity.WARNING and each.mend for each in problems)
    return [each.path for each in problems]


def test_a_class_that_permits_more_than_what_it_narrows_is_told_so(judge: Judge) -> None:
    for classes, path in (
        ({"staff": DataClassSettings(("EU", "US"), narrows=("personal",))}, ("data_classes", "staff", "process_in")),
        ({"staff": DataClassSettings(narrows=("personal",), operators=("DE",))}, None),
        ({"staff": DataClassSettings(("DE",), narrows=("personal",))}, None),
    ):
        assert warned(judge(data_classes={**CLASSES, **classes})) == ([] if path is None else [path])


def test_a_class_that_is_stricter_than_the_default_here_and_laxer_there_is_told_so(judge: Judge) -> None:
    strict = DataClassSettings(("DE",), operators=("DE", "CN"))
    odd = {**CLASSES, "odd": strict}
    (problem,) = judge(data_classes=odd, default_data_class="personal")
    assert problem.path == ("data_classes", "odd")
    assert "laxer in operators" in problem.sentence
    assert judge(data_classes={**CLASSES, "odd": DataClassSettings(("DE",))}, default_data_class="personal") == []
    device_only = {**CLASSES, "odd": DataClassSettings(())}
    assert judge(data_classes=device_only, default_data_class="personal") == []
    weaker = {"x": DataClassSettings(("EU",), evidence=Evidence.CONTRACTUAL), "y": DataClassSettings(("DE",))}
    assert "laxer in evidence" in judge(data_classes=weaker, default_data_class="x")[-1].sentence


def test_what_a_later_rule_always_overwrites_is_told_so(judge: Judge) -> None:
    night = "time.hour > 21"
    first = RuleSettings("first", when=night, set=SetSettings(latency_budget=_s(2), max_cost=1.0))
    for later, overwritten in (
        (RuleSettings("later", set=SetSettings(latency_budget=_s(3))), True),
        (RuleSettings("later", when=night, set=SetSettings(latency_budget=_s(3))), True),
        (RuleSettings("later", when="time.hour > 20", set=SetSettings(latency_budget=_s(3))), False),
        (RuleSettings("later", set=SetSettings(hedge=False)), False),
        (RuleSettings("later", set=SetSettings(max_cost=0.5)), False),
    ):
        expected = [("rules", 0, "set", "latency_budget")] if overwritten else []
        assert warned(judge(first, later)) == expected
    order = SetSettings(order=(Objective.COST,))
    twice = judge(RuleSettings("first", when=night, set=order), RuleSettings("later", set=order))
    assert warned(twice) == [("rules", 0, "set", "order")]


def _s(value: float) -> Any:
    return value


@pytest.mark.parametrize(
    ("when", "word"),
    [
        ("device.charging && !device.charging", "false"),
        ("device.charging || !device.charging", "true"),
        ('request.data_class == "health" && request.data_class == "public"', "false"),
        ("device.charging || !device.has_battery", None),
        ('request.data_class == "health"', None),
    ],
)
def test_a_condition_that_no_fact_can_change_is_told_so(judge: Judge, when: str, word: str | None) -> None:
    problems = judge(RuleSettings("r", when=when, avoid=("phone",)))
    told = [each for each in problems if each.path == ("rules", 0, "when")]
    assert [word in each.sentence for each in told if word] == ([] if word is None else [True])
    assert bool(told) is (word is not None)


def test_a_preference_that_is_never_permitted_is_told_so(judge: Judge) -> None:
    for when, rest, vain in (
        ('request.data_class == "health"', (), True),
        ('"health" in request.data_classes', (), True),
        ('request.data_class == "personal"', (), False),
        (None, (RuleSettings("no", deny=("cloud",)),), True),
        ("connectivity.metered", (RuleSettings("no", when="connectivity.metered", deny=("cloud",)),), True),
        ("connectivity.metered", (RuleSettings("no", when="!connectivity.metered", deny=("cloud",)),), False),
    ):
        rule = RuleSettings("r", when=when, prefer=("cloud",))
        assert warned(judge(rule, *rest)) == ([("rules", 0, "prefer")] if vain else []), when
    assert warned(judge(RuleSettings("r", when='request.data_class == "health"', prefer=("cloud", "phone")))) == []


def test_a_hedge_or_a_failover_that_can_never_follow_is_told_so(judge: Judge) -> None:
    hedge, failover = SetSettings(hedge=True), SetSettings(stream_failover=StreamFailover.CONTINUE)
    local = RuleSettings("local", only=("device",))
    assert warned(judge(local, RuleSettings("r", set=hedge))) == [("rules", 1, "set", "hedge")]
    assert warned(judge(local, RuleSettings("r", set=failover))) == [("rules", 1, "set", "stream_failover")]
    assert warned(judge(RuleSettings("r", set=hedge), RuleSettings("s", set=failover))) == []
    alone = RuleSettings("alone", deny=("gateway",))  # phone and cloud are left, and neither continues what one began
    assert warned(judge(alone, RuleSettings("r", set=hedge), RuleSettings("s", set=failover))) == [
        ("rules", 2, "set", "stream_failover")
    ]
    unhedged = {"public": DataClassSettings(("any",), hedge=False), "health": DataClassSettings(("DE",))}
    of_public = RuleSettings("r", when='request.data_class == "public"', set=hedge)
    assert warned(judge(of_public, data_classes=unhedged)) == [("rules", 0, "set", "hedge")]
    assert warned(judge(RuleSettings("r", set=hedge), data_classes=unhedged)) == []
