"""Conditions: what compiles, what an error does, and that evaluating them together changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.core.problem import Problem, Severity
from edgewise.core.request import Labels, Priority, Task
from edgewise.policies import Policy
from edgewise.policies.conditions import (
    VARIABLES,
    Condition,
    Situation,
    Vocabulary,
    compile_condition,
)
from edgewise.policies.evaluation import ConditionSet
from edgewise.policies.facts import DeviceFacts, Facts, LinkFacts, LinkState, TimeFacts
from edgewise.policies.settings import RuleSettings

VOCABULARY = Vocabulary(frozenset({"public", "health"}), {"app": ("web", "kiosk")})


def outcomes(together: ConditionSet, count: int, situation: Situation) -> list[bool | None]:
    found = together.outcomes(situation)
    assert not found.held & found.failed
    assert (found.held | found.failed) < 1 << count
    return [None if found.failed >> at & 1 else bool(found.held >> at & 1) for at in range(count)]


def compiled(text: str) -> tuple[Condition | None, list[Problem]]:
    problems: list[Problem] = []
    return compile_condition(text, ("when",), VOCABULARY, problems), problems


@pytest.mark.parametrize(
    ("text", "offset", "says"),
    [
        ("request.promt_tokens > 3", 0, "did you mean 'request.prompt_tokens'"),
        ("device.charging && device.battery_pct > 3", 19, "did you mean 'device.battery_percent'"),
        ("request.prompt_tokens", 0, "is int, not true or false"),
        ("device.battery_percent < 20.0", 23, "write 20, not 20.0"),
        ("request.prompt_tokens >", 23, "ends too early"),
        ('request.data_class == "helth"', 22, "did you mean 'health'"),
        ('"helth" in request.data_classes', 0, "did you mean 'health'"),
        ('request.task in ["embed", "generat"]', 26, "did you mean 'generate'"),
        ('connectivity.state != "off"', 22, "connectivity.state is never 'off'"),
        ('request.priority == "urgent"', 20, "write one of high, low, normal"),
        ('time.weekday == "Monday"', 16, "did you mean 'monday'"),
        ('request.tags.ap == "web"', 12, "the tag 'ap' is not declared"),
        ('request.tags["ap"] == "web"', 13, "the tag 'ap' is not declared"),
        ('"ap" in request.tags', 0, "the tag 'ap' is not declared"),
        ('request.tags.app == "wbe"', 20, "did you mean 'web'"),
        ("(" * 40 + "true" + ")" * 40, 0, "nested too deeply"),
        ("request.prompt_tokens > 1 || " * 200 + "true", 0, "longer than"),
        ("device.charging\n  && device.chargin", 21, "did you mean 'device.charging'"),
    ],
)
def test_a_mistake_has_its_place_and_its_mend(text: str, offset: int, says: str) -> None:
    condition, problems = compiled(text)
    assert condition is None
    assert [problem.severity for problem in problems] == [Severity.ERROR]
    assert (problems[0].offset, problems[0].path) == (offset, ("when",))
    assert says in f"{problems[0].sentence}; {problems[0].mend}"


def test_every_mistake_of_a_condition_is_told() -> None:
    assert len(compiled("request.a > 1 && device.b > 2 && time.c > 3")[1]) == 3


@pytest.mark.parametrize(
    ("text", "what", "mend"),
    [
        ("1 == 1", "always true", "remove `when`"),
        ("1 > 2", "always false", "compare a fact"),
        ("1/0 > 1", "fails", "compare a fact"),
    ],
)
def test_a_condition_that_reads_no_fact_is_warned_of(text: str, what: str, mend: str) -> None:
    condition, problems = compiled(text)
    assert condition is not None
    assert [problem.severity for problem in problems] == [Severity.WARNING]
    assert what in problems[0].sentence
    assert problems[0].mend.startswith(mend)


def test_a_condition_may_be_so_long_and_no_longer() -> None:
    text = "device.charging" + " " * (4000 - len("device.charging"))
    assert compiled(text)[1] == []
    assert "longer than 4000" in compiled(text + " ")[1][0].sentence


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("time.hour >= 22 || 6 > time.hour", {"time.hour": {22, 6}}),
        ("time.hour % 2 == 0 && time.hour > 3", {"time.hour": None}),
        ("time.hour > time.minute", {"time.hour": None, "time.minute": None}),
        ("time.hour != -1 && device.charging", {"time.hour": {-1}, "device.charging": None}),
        ("3 > 2 && time.hour <= 4", {"time.hour": {4}}),
    ],
)
def test_the_numbers_that_a_fact_is_compared_with_are_known(text: str, reads: dict[str, set[int] | None]) -> None:
    condition, _ = compiled(text)
    assert condition is not None
    assert condition.reads == reads


def test_every_documented_variable_compiles() -> None:
    kinds = {"INT": "{} > 1", "BOOL": "{}", "STRING": "{} == {}", "DURATION": '{} > duration("1s")'}
    for name, variable in VARIABLES.items():
        text = kinds.get(variable.type.name(), "size({}) > 0").replace("{}", name)
        condition, problems = compiled(text)
        assert condition is not None, text
        assert not problems


ATOMS = (
    "request.prompt_tokens > 10",
    "20 >= request.prompt_tokens",
    "request.prompt_tokens == 20",
    "request.prompt_tokens % 2 == 0",
    "request.max_output_tokens / request.prompt_tokens > 2",
    "request.latency_budget < duration('2s')",
    "connectivity.age > duration('1.5s')",
    'request.data_class == "health"',
    'request.data_classes.exists(c, c == "health")',
    '"public" in request.data_classes',
    'request.tags.app == "web"',
    'has(request.tags.app) && request.tags.app == "kiosk"',
    'request.priority in ["low", "high"]',
    'connectivity.state == "offline"',
    "device.battery_percent < 20 && !device.charging",
    "device.load_percent > -5 // always, and says so",
    "time.hour >= 22 || time.hour < 6",
    "size(request.tags) == 0 ? connectivity.metered : device.charging",
    'request.task.startsWith("gen")',
)
condition_texts = st.lists(
    st.one_of(
        st.sampled_from(ATOMS),
        st.builds("({}\n) && ({}\n)".format, st.sampled_from(ATOMS), st.sampled_from(ATOMS)),
        st.builds("!({}\n) || ({}\n)".format, st.sampled_from(ATOMS), st.sampled_from(ATOMS)),
    ),
    min_size=1,
    max_size=6,
)
situations = st.builds(
    Situation,
    st.builds(
        Facts,
        st.just("r"),
        st.builds(
            Labels,
            st.sampled_from(Task),
            prompt_tokens=st.sampled_from([0, 9, 10, 11, 19, 20, 21, 400]),
            max_output_tokens=st.sampled_from([0, 64]),
            priority=st.sampled_from(Priority),
        ),
        st.builds(LinkFacts, st.sampled_from(LinkState), st.booleans(), st.just(50), st.sampled_from([0.0, 1.5, 2.25])),
        st.builds(DeviceFacts, st.sampled_from([0, 19, 20, 100]), st.booleans(), st.booleans()),
        st.builds(TimeFacts, st.sampled_from([0, 5, 6, 21, 22, 23]), st.just(0), st.just("monday")),
        st.just(()),
    ),
    st.sampled_from(["public", "health"]),
    st.sampled_from([("public",), ("health", "public"), ()]),
    st.sampled_from([(), (("app", "web"),), (("app", "kiosk"),)]),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.just(0.5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=condition_texts, several=st.lists(situations, min_size=1, max_size=8))
def test_evaluating_together_agrees_with_plain_cel(texts: list[str], several: list[Situation]) -> None:
    conditions = [condition for text in texts if (condition := compiled(text)[0]) is not None]
    assert len(conditions) == len(texts)
    together = ConditionSet(conditions)
    for situation in several:  # the later ones meet what was remembered of the earlier
        facts = {}
        for name, variable in VARIABLES.items():
            value: object = situation
            for part in variable.path.split("."):
                value = getattr(value, part)
            facts[name] = value if variable.convert is None else variable.convert(value)
        expected = [condition.outcome(facts) for condition in conditions]
        assert outcomes(together, len(conditions), situation) == expected


def test_a_failing_deny_applies_and_a_failing_preference_does_not(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    fails = "1000 / request.prompt_tokens > 5"
    policy = make_policy(
        RuleSettings("careful", fails, deny=("cloud",)),
        RuleSettings("selective", fails, only=("gateway", "cloud")),
        RuleSettings("keen", fails, prefer=("phone",), avoid=("gateway",)),
        RuleSettings("fine", "request.prompt_tokens == 0", prefer=("gateway",)),
    )
    plan = policy.plan(make_facts(prompt_tokens=0))
    assert [step.backend for step in plan.steps] == ["gateway"]
    assert not plan.steps[0].avoided
    assert plan.matched_rules == ("fine",)
    assert len(plan.notes) == 3
    assert all("failed" in note for note in plan.notes)
    assert [step.backend for step in policy.plan(make_facts(prompt_tokens=500)).steps] == ["cloud", "gateway", "phone"]


def test_a_request_of_several_classes_is_judged_as_each_of_them(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    for one, other in (("personal", "public"), ("public", "personal")):
        policy = make_policy(RuleSettings("at home", f'request.data_class == "{one}"', deny=("remote",)))
        for classes in ((one, other), (other, one), (one,)):
            assert [step.backend for step in policy.plan(make_facts(data_classes=classes)).steps] == ["phone"]
        assert len(policy.plan(make_facts(data_classes=(other,))).steps) == 3
        failing = f'request.data_class == "{one}" && 1 / request.prompt_tokens > 0'
        careful = make_policy(RuleSettings("at home", failing, deny=("remote",)))
        assert [step.backend for step in careful.plan(make_facts(data_classes=(one, other))).steps] == ["phone"]


def test_a_number_that_is_compared_and_used_otherwise_too_is_looked_at_whole(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    text = "request.prompt_tokens > 10 && request.prompt_tokens % 2 == 0"
    policy = make_policy(RuleSettings("even", text, deny=("cloud",)))
    for prompt_tokens in (11, 12, 13, 14):
        plan = policy.plan(make_facts(prompt_tokens=prompt_tokens))
        assert plan.matched_rules == (("even",) if prompt_tokens % 2 == 0 else ())


def test_only_declared_tags_with_listed_values_are_seen(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    policy = make_policy(
        RuleSettings("web", '"app" in request.tags', prefer=("phone",)), tags={"app": ("web", "kiosk")}
    )
    assert policy.plan(make_facts(tags={"app": "web"})).matched_rules == ("web",)
    stranger = policy.plan(make_facts(tags={"app": "Zebulon Quartz", "note": "x"}))
    assert stranger.matched_rules == ()
    assert "2 tag(s)" in stranger.notes[0]
    assert "Zebulon" not in repr(stranger.notes)


@pytest.mark.parametrize("number", [0, -1, 3000, 2**53 + 1, 2**62])
def test_what_is_remembered_tells_neighbouring_numbers_apart(number: int) -> None:
    texts = [f"request.prompt_tokens {sign} {number}" for sign in ("<", "<=", "==", "!=", ">=", ">")]
    together = ConditionSet([condition for text in texts if (condition := compiled(text)[0]) is not None])
    for _ in range(2):
        for tokens in (number - 1, number, number + 1):
            labels = Labels(Task.GENERATE, prompt_tokens=tokens)
            facts = Facts("r", labels, LinkFacts(), DeviceFacts(), TimeFacts(0, 0, "monday"), ())
            expected = [
                tokens < number,
                tokens <= number,
                tokens == number,
                tokens != number,
                tokens >= number,
                tokens > number,
            ]
            assert outcomes(together, 6, Situation(facts, "public", ("public",), (), 1.0, 1.0)) == expected


def test_a_duration_longer_than_any_is_a_long_one(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    policy = make_policy(RuleSettings("slow", "request.latency_budget > duration('1h')", prefer=("phone",)))
    for seconds in (3601.0, 1e12, 1e15, 1e300):
        plan = policy.plan(make_facts(latency_budget=seconds))
        assert (plan.matched_rules, plan.notes, plan.latency_budget) == (("slow",), (), seconds)


def test_however_many_combinations_of_facts_are_read_each_condition_keeps_its_outcome() -> None:
    names = [f"device.{each}" for each in ("battery_percent", "load_percent", "memory_free_mb")]
    names += ["request.prompt_tokens", "request.max_output_tokens", "time.hour", "time.minute"]
    texts = [f"{one} % 3 == {other} % 3" for one, other in combinations(names, 2)]
    texts += [f"{one} / {other} > 1" for one, other in combinations(names, 2)]  # fails for 0
    conditions = [condition for text in texts if (condition := compiled(text)[0]) is not None]
    together = ConditionSet(conditions)
    chance = random.Random(5)
    for _ in range(40):
        a, b, c, d, e, f, g = (chance.randrange(5) for _ in names)
        labels = Labels(Task.GENERATE, prompt_tokens=d, max_output_tokens=e)
        device = DeviceFacts(a, True, True, b, c)
        facts = Facts("r", labels, LinkFacts(), device, TimeFacts(f, g, "monday"), ())
        data = dict(zip(names, (a, b, c, d, e, f, g), strict=True))
        expected = [condition.outcome(data) for condition in conditions]
        assert outcomes(together, len(conditions), Situation(facts, "", (), (), 1.0, 1.0)) == expected
