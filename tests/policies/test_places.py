"""The places that come with edgewise, and what names mean."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files

import pytest

from edgewise.core.errors import InvalidRequest
from edgewise.core.place import ANYWHERE, NOWHERE, Place, PlaceSet
from edgewise.core.problem import Problem
from edgewise.policies.places import Places


def test_every_country_and_group_is_what_its_source_says(places: Places) -> None:
    assert len(places.countries) == 249
    assert all(re.fullmatch(r"[A-Z]{2}", code) for code in places.countries)
    assert len(places.groups["EU"].members) == 27
    assert places.groups["EEA"].members - places.groups["EU"].members == {"IS", "LI", "NO"}
    for group in places.groups.values():
        assert group.members <= set(places.countries)
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", group.as_of)
        assert len(group.source) > 30


def test_partial_adequacy_decisions_are_left_out(places: Places) -> None:
    assert not places.groups["EU_ADEQUATE"].members & {"US", "CA", "JP", "KR"}
    assert {"BR", "CH", "GB"} <= places.groups["EU_ADEQUATE"].members
    assert places.groups["EU_ADEQUATE"].until == "2031-12-27"


def test_the_data_is_where_the_package_finds_it() -> None:
    assert json.loads((files("edgewise.policies") / "data/places.json").read_text("utf-8"))["mistaken"]["UK"] == "GB"


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("UK", "'GB'"),
        ("EL", "'GR'"),
        ("Germany", "'DE'"),
        ("de", "'DE'"),
        ("eu", "'EU'"),
        ("site:praxi", "'site:praxis'"),
        ("praxis", "'site:praxis'"),
        ("device", "`[]`"),
        ("XX", "alpha-2"),
    ],
)
def test_an_unknown_name_is_no_place_and_the_mend_says_what_is(places: Places, name: str, mend: str) -> None:
    problems: list[Problem] = []
    found = replace(places, sites={"praxis": "DE"}).read([name, "FR"], ("x",), problems)
    assert found == PlaceSet.of([Place("FR")])
    assert [problem.path for problem in problems] == [("x", 0)]
    assert mend in problems[0].mend


def test_any_stands_alone(places: Places) -> None:
    problems: list[Problem] = []
    assert places.read(["any"], (), problems) == ANYWHERE
    assert not problems
    places.read(["any", "DE"], ("x",), problems)
    assert [problem.path for problem in problems] == [("x",)]


def test_a_set_is_described_by_its_groups(places: Places) -> None:
    assert places.describe(places.read(["EU", "CH", "US"], (), [])) == "[EU, CH, US]"
    assert places.describe(places.read(["EEA"], (), [])) == "[EEA]"
    assert places.describe(NOWHERE) == "[]"


def test_a_callers_residency_reads_like_a_data_class(places: Places) -> None:
    everywhere_alike = places.read_residency(["DE"])
    assert everywhere_alike.process_in == everywhere_alike.store_in == everywhere_alike.operators
    assert places.read_residency("DE") == everywhere_alike
    only_stored = places.read_residency({"store_in": []})
    assert (only_stored.process_in, only_stored.store_in, only_stored.operators) == (None, NOWHERE, None)
    with pytest.raises(InvalidRequest, match="did you mean 'store_in'"):
        places.read_residency({"storein": ["DE"]})
    with pytest.raises(InvalidRequest, match="'UK' is no known place; write 'GB'"):
        places.read_residency({"process_in": ["UK"]})
    with pytest.raises(InvalidRequest) as both:
        places.read_residency(["DE", "UK", "EUR"])
    assert [str(both.value).count(f"{name!r} is no known place") for name in ("DE", "UK", "EUR")] == [0, 1, 1]
