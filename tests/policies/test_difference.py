"""Two policies side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgewise.core.place import DEVICE, Evidence, Location, Place, PlaceSet
from edgewise.policies import Policy
from edgewise.policies.difference import Change, changed_keys, compare
from edgewise.policies.facts import BackendTerms
from edgewise.policies.settings import DataClassSettings, RuleSettings

from .conftest import CLASSES

MakePolicy = Callable[..., Policy]
DE, NL = PlaceSet.of([Place("DE")]), PlaceSet.of([Place("NL")])
BOTH = PlaceSet.of([Place("DE"), Place("NL")])
ANY = {"public": CLASSES["public"]}


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (Location(DE, DE, DE), Location(DE, DE, DE), None),
        (Location(BOTH, BOTH, BOTH), Location(DE, NL, DE), None),
        (Location(DE, DE, DE), Location(BOTH, DE, DE), "its process_in is now"),
        (Location(DE, DE, DE), Location(DE, NL, DE), "its store_in is now"),
        (Location(DE, DE, DE), Location(DE, DE, BOTH), "its operators is now"),
        (Location(DE, DE, DE, Evidence.ATTESTED), Location(DE, DE, DE), "its evidence is now"),
        (Location(DE, DE, DE), Location(DE, DE, DE, Evidence.ATTESTED), None),
        (DEVICE, Location(DE, DE, DE), "it ran on this device"),
        (Location(DE, DE, DE), DEVICE, None),
    ],
)
def test_a_location_that_is_wider_or_less_certain_opens(
    make_policy: MakePolicy, terms: tuple[BackendTerms, ...], before: Location, now: Location, why: str | None
) -> None:
    old, new = (make_policy(data_classes=ANY, backends=(replace(terms[1], location=where),)) for where in (before, now))
    found = compare(old, new)
    assert found.closed == ()
    assert [(each.data_classes, each.backend) for each in found.opened] == ([(("public",), "gateway")] if why else [])
    assert all(why in each.why for each in found.opened if why)


def test_backends_and_classes_that_come_and_go(make_policy: MakePolicy, terms: tuple[BackendTerms, ...]) -> None:
    few = make_policy(data_classes=ANY, backends=terms[:1])
    more = make_policy(data_classes=ANY, backends=terms[:2])
    assert compare(few, more).opened == (Change(("public",), "gateway", "the backend is new"),)
    assert compare(more, few).closed == (Change(("public",), "gateway", "the backend is gone"),)
    two = make_policy(data_classes={**ANY, "open": CLASSES["public"]}, backends=terms[:1])
    assert compare(few, two).opened == (Change(("open",), "phone", "the class is new"),)
    assert compare(two, few).closed == (Change(("open",), "phone", "the class is gone"),)
    assert compare(few, few) == compare(two, two)


def test_rules_and_walls_that_give_way(make_policy: MakePolicy) -> None:
    denied = make_policy(RuleSettings("no", "connectivity.metered", deny=("cloud",)), data_classes=ANY)
    plain = make_policy(data_classes=ANY)
    assert compare(denied, plain).opened == (
        Change(("public",), "cloud", "before: rule 'no' refused it, where connectivity.metered"),
    )
    assert compare(plain, denied) == compare(plain, plain)
    always = make_policy(RuleSettings("no", deny=("cloud",)), data_classes=ANY)
    assert [each.why for each in compare(always, plain).opened] == ["before: rule 'no' always refuses it"]
    assert [each.why for each in compare(plain, always).closed] == ["rule 'no' always refuses it"]
    narrow = make_policy(data_classes={"public": DataClassSettings(("DE",))})
    (opened,) = compare(narrow, plain).opened
    assert (opened.backend, opened.why.startswith("before: class 'public'")) == ("cloud", True)


def test_content_without_a_class_that_gets_a_laxer_one(make_policy: MakePolicy) -> None:
    strict, lax = make_policy(default_data_class="health"), make_policy(default_data_class="public")
    (opened,) = compare(strict, lax).opened
    assert (opened.data_classes, opened.backend) == ((), "cloud")
    assert opened.why.startswith("its class is now public; before: class 'health'")
    assert compare(lax, strict).opened == ()
    all_at_once = make_policy(default_data_class=None)
    assert [each.backend for each in compare(all_at_once, lax).opened] == ["cloud"]
    assert compare(lax, all_at_once).opened == ()


def test_keys_that_differ_are_told_by_their_paths() -> None:
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": {"f": 1}, "g": 3}
    new = {"a": 2, "b": {"c": 1, "d": 3}, "e": 4, "h": 3}
    assert changed_keys(old, new) == ["a", "b.d", "e", "g", "h"]
    assert changed_keys(old, old) == []
