"""Walls against a naive reference: everything a backend might do must fit into every class, one place at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.core.decision import RefusalCode
from edgewise.core.place import DEVICE, Evidence, Location, Place, PlaceSet
from edgewise.core.request import Residency
from edgewise.policies import Policy, compile_policy
from edgewise.policies.classes import build_walls
from edgewise.policies.facts import BackendTerms, Facts
from edgewise.policies.places import Places
from edgewise.policies.settings import DataClassSettings, PolicySettings, SiteSettings
from edgewise.policies.walls import Walls

SITES = {"praxis": "DE", "lab": "FR"}
NAMES = ("DE", "FR", "US", "CH", "EU", "site:praxis", "site:lab")
COUNTRIES = ("DE", "FR", "US", "CH", "EU")

names = st.one_of(st.just(("any",)), st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple))
operators = st.one_of(st.just(("any",)), st.lists(st.sampled_from(COUNTRIES), max_size=3, unique=True).map(tuple))
evidence = st.sampled_from(Evidence)
classes = st.builds(DataClassSettings, names, st.none() | names, st.none() | operators, st.none() | evidence)


@st.composite
def class_sections(draw: st.DrawFn) -> dict[str, DataClassSettings]:
    """Up to four classes; each may narrow some that come before it."""
    section: dict[str, DataClassSettings] = {}
    for at in range(draw(st.integers(1, 4))):
        own = draw(classes)
        parents = tuple(draw(st.lists(st.sampled_from(sorted(section)), unique=True, max_size=2)) if section else ())
        process_in = draw(st.just(own.process_in) | st.none()) if parents else own.process_in
        section[f"c{at}"] = DataClassSettings(process_in, own.store_in, own.operators, own.evidence, parents)
    return section


WrittenSet = tuple[str, ...] | None
written_locations = st.tuples(
    st.none() | names.filter(bool), st.none() | names, st.none() | operators.filter(bool), evidence
)


def atoms(written: WrittenSet, places: Places) -> set[str]:
    """The smallest places that a list might mean: countries, and sites written with theirs; `*` for anything else."""
    if written is None or "any" in written:
        return {"*"}
    found: set[str] = set()
    for name in written:
        found |= set(places.groups[name].members) if name in places.groups else {name}
    return found


def fits(has: WrittenSet, permits: WrittenSet, places: Places) -> bool:
    """The reference: each place of the one is, or stands in, a place of the other."""
    allowed = atoms(permits, places)
    return "*" in allowed or all(
        each in allowed or (each.startswith("site:") and SITES[each.removeprefix("site:")] in allowed)
        for each in atoms(has, places)
    )


def reference(
    section: Mapping[str, DataClassSettings],
    name: str,
    location: tuple[WrittenSet, WrittenSet, WrittenSet, Evidence],
    places: Places,
) -> bool:
    """Whether a class permits a location, straight from the documentation."""
    written = section[name]
    process_in, store_in, operated_by, strength = location
    own_operators = written.process_in if written.operators is None else written.operators
    return (
        fits(process_in, written.process_in, places)
        and fits(store_in, written.process_in if written.store_in is None else written.store_in, places)
        and fits(operated_by, own_operators, places)
        and strength >= (written.evidence or Evidence.DECLARED)
        and all(reference(section, parent, location, places) for parent in written.narrows)
    )


def read(written: WrittenSet, places: Places) -> PlaceSet:
    return places.read(("any",) if written is None else written, (), [])


def located(written: tuple[WrittenSet, WrittenSet, WrittenSet, Evidence], known: Places) -> Location:
    process_in, store_in, operators, evidence = written
    return Location(read(process_in, known), read(store_in, known), read(operators, known), evidence)


@given(section=class_sections(), location=written_locations, chosen=st.data())
def test_walls_agree_with_the_reference(
    places: Places,
    section: dict[str, DataClassSettings],
    location: tuple[WrittenSet, WrittenSet, WrittenSet, Evidence],
    chosen: st.DataObject,
) -> None:
    known = replace(places, sites=SITES)
    walls = Walls(build_walls(section, known, []), None, known.describe)
    somewhere = located(location, known)
    named = chosen.draw(st.lists(st.sampled_from(sorted(section)), unique=True))
    # No class named: with no default, all of them hold.
    expected = all(reference(section, name, location, known) for name in named or section)
    effective = walls.effective(named, unclassed=False)
    assert (walls.objection(effective, None, somewhere) is None) == expected
    meet = walls.meet(effective)
    assert (meet.objection("all", somewhere, known.describe) is None) == expected
    assert walls.objection(effective, None, DEVICE) is None


@given(section=class_sections(), location=written_locations, narrower=names)
def test_more_classes_and_a_callers_narrowing_never_permit_more(
    places: Places,
    section: dict[str, DataClassSettings],
    location: tuple[WrittenSet, WrittenSet, WrittenSet, Evidence],
    narrower: tuple[str, ...],
) -> None:
    known = replace(places, sites=SITES)
    walls = Walls(build_walls(section, known, []), None, known.describe)
    somewhere = located(location, known)
    if walls.objection(("c0",), None, somewhere) is not None:
        assert walls.objection(tuple(section), None, somewhere) is not None
        assert walls.objection(("c0",), known.read_residency(list(narrower)), somewhere) is not None


def test_what_is_not_known_is_not_permitted(places: Places) -> None:
    walls = Walls({}, None, places.describe)
    assert walls.objection((), None, Location()) is not None
    assert walls.objection(("unheard-of",), None, Location(evidence=Evidence.ATTESTED)) is not None
    assert walls.objection((), None, DEVICE) is None


def test_the_sentence_names_the_key_and_both_places(places: Places) -> None:
    wall = build_walls({"health": DataClassSettings(("EU",), operators=("DE",))}, places, [])["health"]
    here = PlaceSet.of([Place("DE")])
    american = Location(here, here, PlaceSet.of([Place("US")]))
    assert wall.objection("class 'health'", american, places.describe) == (
        "class 'health' permits operators [DE]; this backend has [US]"
    )
    assert wall.objection("class 'health'", Location(), places.describe) == (
        "class 'health' permits process_in [EU]; this backend has [any]"
    )


def test_a_circle_of_narrowing_and_unknown_parents_are_mistakes(places: Places) -> None:
    section = {
        "a": DataClassSettings(("DE",), narrows=("b",)),
        "b": DataClassSettings(("FR",), narrows=("a",)),
        "c": DataClassSettings(narrows=("d",)),
        "e": DataClassSettings(),
    }
    policy, problems = compile_policy(PolicySettings(data_classes=section), [], places)
    assert policy is None
    assert {problem.path for problem in problems} == {
        ("data_classes", "a", "narrows", 0),
        ("data_classes", "b", "narrows", 0),
        ("data_classes", "c", "narrows", 0),
        ("data_classes", "e"),
    }


def test_a_class_has_the_limits_of_all_that_it_narrows(places: Places) -> None:
    section = {
        "personal": DataClassSettings(("EU",), operators=("EU",)),
        "staff": DataClassSettings(("DE", "US"), operators=("any",), narrows=("personal",)),
        "file": DataClassSettings(evidence=Evidence.CONTRACTUAL, narrows=("staff",)),
    }
    walls = Walls(build_walls(section, places, []), None, places.describe)

    def permitted(name: str, country: str, operator: str, evidence: Evidence = Evidence.CONTRACTUAL) -> bool:
        there = PlaceSet.of([Place(country)])
        location = Location(there, there, PlaceSet.of([Place(operator)]), evidence)
        return walls.objection((name,), None, location) is None

    assert permitted("staff", "DE", "FR")
    assert not permitted("staff", "US", "FR")
    assert not permitted("staff", "DE", "US")
    assert not permitted("staff", "FR", "FR")
    assert permitted("file", "DE", "FR")
    assert not permitted("file", "DE", "FR", Evidence.DECLARED)
    assert not permitted("file", "FR", "FR")
    assert not permitted("file", "DE", "US")


def test_a_site_lies_in_its_country_and_not_the_other_way_round(places: Places) -> None:
    settings = PolicySettings(
        sites={"praxis": SiteSettings("DE")},
        data_classes={"german": DataClassSettings(("DE",)), "health": DataClassSettings(("site:praxis",))},
    )
    policy, _ = compile_policy(settings, [], places)
    assert policy is not None
    site = PlaceSet.of([Place("DE", "praxis")])
    country = PlaceSet.of([Place("DE")])
    assert policy.walls.objection(("german",), None, Location(site, site, site)) is None
    assert policy.walls.objection(("health",), None, Location(country, country, country)) is not None


@pytest.mark.parametrize(
    ("labels", "steps"),
    [
        ({"data_classes": ("public",)}, {"phone", "gateway", "cloud"}),
        ({"data_classes": ("personal",)}, {"phone", "gateway", "cloud"}),
        ({"data_classes": ("health",)}, {"phone", "gateway"}),
        ({"data_classes": ("public", "health")}, {"phone", "gateway"}),
        ({"data_classes": ("health",), "unclassed": True}, {"phone", "gateway"}),
        ({"data_classes": ()}, {"phone", "gateway", "cloud"}),
        ({"residency": Residency(process_in=PlaceSet.of([Place("FR")]))}, {"phone"}),
    ],
)
def test_a_plan_holds_permitted_backends_only(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts], labels: dict[str, object], steps: set[str]
) -> None:
    plan = make_policy().plan(make_facts(**labels))
    assert {step.backend for step in plan.steps} == steps
    assert {refusal.code for refusal in plan.refusals} <= {RefusalCode.RESIDENCY}
    assert {refusal.backend for refusal in plan.refusals} | steps == {"phone", "gateway", "cloud"}


def test_with_no_default_class_unclassed_content_has_every_class(
    make_policy: Callable[..., Policy], make_facts: Callable[..., Facts]
) -> None:
    plan = make_policy(default_data_class=None).plan(make_facts())
    assert plan.data_classes == ("health", "personal", "public")
    assert {step.backend for step in plan.steps} == {"phone", "gateway"}
    mixed = make_policy(default_data_class="health").plan(make_facts(data_classes=("public",), unclassed=True))
    assert mixed.data_classes == ("health", "public")


def test_without_data_classes_content_stays_on_the_device(
    terms: tuple[BackendTerms, ...], places: Places, make_facts: Callable[..., Facts]
) -> None:
    policy, problems = compile_policy(PolicySettings(), terms, places)
    assert policy is not None
    assert ["no data classes" in problem.sentence for problem in problems] == [True]
    assert [step.backend for step in policy.plan(make_facts()).steps] == ["phone"]
