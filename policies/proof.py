"""Where content of each data class can ever be, as a proof that people and programs can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from ..core.place import ANYWHERE, NOWHERE, Evidence, Location, PlaceSet
from .planner import Policy
from .reach import describe

NOT_PROVEN = (
    "that the locations which the file declares are true: evidence below 'attested' is somebody's word",
    "that content is labelled with its data class",
    "what a backend's operator does with content once it is there",
)
"""What no policy can prove."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A backend that content may reach, and what would have to hold for it; empty where nothing need."""

    backend: str
    location: Location
    where: str


@dataclass(frozen=True, slots=True)
class Bound:
    """All that requests of these classes, alone or with others, can ever reach, by any attempt of any kind.

    ``never`` says for every other backend why not. ``evidence`` is the weakest claim that each place rests upon;
    ``any`` stands for a place that is not bound.
    """

    data_classes: tuple[str, ...]
    reached: tuple[Reached, ...]
    never: Mapping[str, str]
    process_in: PlaceSet
    store_in: PlaceSet
    operators: PlaceSet
    evidence: Mapping[str, Evidence]


def prove(policy: Policy) -> list[Bound]:
    """The bound of every class, and of every two together: three or more reach no more than any two of them.

    And of content without a class, where that has the limits of all at once.
    """
    names = sorted(policy.walls.by_class)
    sets: list[tuple[str, ...]] = [(name,) for name in names]
    sets += combinations(names, 2)
    unclassed = policy.walls.effective((), True)
    sets += [] if unclassed in sets else [unclassed]
    return [bound(policy, each) for each in sets] if sets else [bound(policy, ())]


def bound(policy: Policy, classes: tuple[str, ...]) -> Bound:
    """The bound of one class, or of several together."""
    reached: list[Reached] = []
    never: dict[str, str] = {}
    for at, terms in enumerate(policy.terms):
        example = policy.reach.example(at, classes)
        if example is None:
            never[terms.name] = policy.reach.objection(at, classes) or "rules refuse it"
        else:
            reached.append(Reached(terms.name, terms.location, describe(example)))
    beyond = [each.location for each in reached if not each.location.on_device]
    return Bound(
        classes,
        tuple(reached),
        never,
        _union(each.process_in for each in beyond),
        _union(each.store_in for each in beyond),
        _union(each.operators for each in beyond),
        _weakest(beyond),
    )


def _union(sets: Iterable[PlaceSet]) -> PlaceSet:
    found = NOWHERE
    for each in sets:
        found = ANYWHERE if found.anywhere or each.anywhere else PlaceSet(found.places | each.places)
    return found


def _weakest(locations: Iterable[Location]) -> dict[str, Evidence]:
    weakest: dict[str, Evidence] = {}
    for each in locations:
        for places in (each.process_in, each.store_in, each.operators):
            for place in ["any"] if places.anywhere else map(str, places.places):
                weakest[place] = min(weakest.get(place, each.evidence), each.evidence)
    return dict(sorted(weakest.items()))
