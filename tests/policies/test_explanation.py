"""The whole reasoning: every rule, every backend, every reason; and the proof of where content can be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgewise.core.place import ANYWHERE, NOWHERE, Evidence, Place, PlaceSet
from edgewise.policies import Policy
from edgewise.policies.explanation import RuleFinding, explain
from edgewise.policies.facts import BackendTerms, Facts, LinkFacts, LinkState
from edgewise.policies.proof import bound, prove
from edgewise.policies.settings import DataClassSettings, RuleSettings, SetSettings

from .conftest import CLASSES, in_country

MakePolicy = Callable[..., Policy]
MakeFacts = Callable[..., Facts]


def test_every_rule_tells_what_became_of_it(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(
        RuleSettings("keen", prefer=("cloud", "gateway"), avoid=("phone",)),
        RuleSettings("never", "request.prompt_tokens > 5", deny=("remote",)),
        RuleSettings("fails", "1 / request.prompt_tokens > 0", only=("gateway", "phone")),
        RuleSettings("none", "device.charging", only=()),
        RuleSettings("slow", set=SetSettings(hedge=False)),
    )
    assert explain(policy, make_facts(prompt_tokens=0)).rules == (
        RuleFinding("keen", None, True, ("prefer cloud, gateway", "avoid phone")),
        RuleFinding("never", "request.prompt_tokens > 5", False, ("deny remote",)),
        RuleFinding("fails", "1 / request.prompt_tokens > 0", None, ("only gateway, phone",)),
        RuleFinding("none", "device.charging", True, ("only none",)),
        RuleFinding("slow", None, True, ("set",)),
    )


def test_every_backend_has_all_that_speaks_for_and_against_it(make_policy: MakePolicy, make_facts: MakeFacts) -> None:
    policy = make_policy(
        RuleSettings("keen", prefer=("cloud",), avoid=("phone",)),
        RuleSettings("home", only=("device",)),
        RuleSettings("no meters", deny=("metered",)),
        RuleSettings("fails", "1 / request.prompt_tokens > 0", deny=("gateway",), prefer=("gateway",)),
        RuleSettings("not now", "request.prompt_tokens > 5", deny=("phone",), avoid=("phone",), prefer=("phone",)),
    )
    facts = make_facts(link=LinkFacts(LinkState.OFFLINE), data_classes=("health",), prompt_tokens=0)
    phone, gateway, cloud = explain(policy, facts).backends
    assert phone.step is not None
    assert (phone.against, phone.rules) == ((), ("rule 'keen' avoids it",))
    assert (gateway.step, gateway.rules) == (None, ())
    assert gateway.against == ("rule 'home' permits others only", "rule 'fails' denies it")
    assert (cloud.step, cloud.rules) == (None, ("rule 'keen' prefers it",))
    assert cloud.against[1:] == ("rule 'home' permits others only", "rule 'no meters' denies it")
    assert "class 'health'" in cloud.against[0]
    offline = explain(make_policy(), make_facts(link=LinkFacts(LinkState.OFFLINE))).backends[2]
    assert offline.against == ("it needs the network, and this device is offline",)


def test_a_bound_is_all_that_content_can_reach(make_policy: MakePolicy, terms: tuple[BackendTerms, ...]) -> None:
    weak = replace(terms[2], location=in_country("NL", "US", evidence=Evidence.DECLARED))
    strong = replace(terms[1], location=in_country("DE", "US", evidence=Evidence.ATTESTED))
    policy = make_policy(RuleSettings("r", "connectivity.metered", deny=("cloud",)), backends=(terms[0], strong, weak))
    personal = bound(policy, ("personal",))
    assert [(each.backend, each.where) for each in personal.reached] == [
        ("phone", ""),
        ("gateway", ""),
        ("cloud", "not (connectivity.metered)"),
    ]
    assert personal.never == {}
    assert personal.process_in == PlaceSet.of([Place("DE"), Place("NL")])
    assert personal.operators == PlaceSet.of([Place("US")])
    assert personal.evidence == {"DE": Evidence.ATTESTED, "NL": Evidence.DECLARED, "US": Evidence.DECLARED}
    health = bound(policy, ("health",))
    assert [each.backend for each in health.reached] == ["phone"]
    assert set(health.never) == {"gateway", "cloud"}
    assert (health.process_in, health.evidence) == (NOWHERE, {})


def test_what_is_unbound_counts_as_any(make_policy: MakePolicy, terms: tuple[BackendTerms, ...]) -> None:
    unknown = replace(terms[2], location=replace(terms[2].location, store_in=ANYWHERE))
    public = bound(make_policy(backends=(terms[0], terms[1], unknown)), ("public",))
    assert public.store_in == ANYWHERE
    assert public.evidence == dict.fromkeys(("DE", "NL", "US", "any"), Evidence.DECLARED)


def test_every_class_every_two_and_content_without_one_are_proven(make_policy: MakePolicy) -> None:
    singles_and_pairs = [
        ("health",),
        ("personal",),
        ("public",),
        ("health", "personal"),
        ("health", "public"),
        ("personal", "public"),
    ]
    assert [each.data_classes for each in prove(make_policy())] == singles_and_pairs
    unclassed = prove(make_policy(default_data_class=None))
    assert [each.data_classes for each in unclassed] == [*singles_and_pairs, ("health", "personal", "public")]
    assert [each.data_classes for each in prove(make_policy(data_classes={}, default_data_class=None))] == [()]
    one = {"public": CLASSES["public"]}
    assert [each.data_classes for each in prove(make_policy(data_classes=one))] == [("public",)]
    narrow = {**one, "staff": DataClassSettings(("any",), operators=("DE",))}
    assert [each.backend for each in prove(make_policy(data_classes=narrow))[0].reached] == [
        "phone",
        "gateway",
        "cloud",
    ]
