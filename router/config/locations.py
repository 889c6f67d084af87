"""Where a backend is: the file's words become a location."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from ...core.place import ANYWHERE, DEVICE, Evidence, Location, PlaceSet
from ...core.problem import Path, Problem, Severity
from ...policies.classes import read_operators
from ...policies.places import Places


@dataclass(frozen=True, slots=True)
class LocationSettings:
    """Where content might go at a backend. A missing key means anywhere."""

    process_in: Annotated[tuple[str, ...] | None, "where it is processed: countries, groups, `site:NAME`"] = None
    store_in: Annotated[tuple[str, ...] | None, "where it is stored; `[]` keeps nothing"] = None
    operators: Annotated[tuple[str, ...] | None, "whose operators handle it, by country"] = None
    evidence: Annotated[Evidence, "how strong this claim is: declared, contractual or attested"] = Evidence.DECLARED


WrittenLocation = Literal["device"] | LocationSettings


@cache
def known_places() -> Places:
    """The countries and groups that come with edgewise."""
    text = (files("edgewise.policies") / "data" / "places.json").read_text("utf-8")
    return Places.from_data(json.loads(text))


def build_location(
    written: WrittenLocation | None,
    on_device: bool | None,
    pinned: bool,
    places: Places,
    path: Path,
    problems: list[Problem],
) -> Location:
    """The location of a backend whose engine does or does not run on this device; ``None`` if that is not known.

    ``pinned``: the server is proven by certificates of the configuration's own.
    """
    if on_device:
        if isinstance(written, LocationSettings):
            mend = "write `location: device`, or leave it out"
            problems.append(Problem("this kind of backend runs on this device and nowhere else", mend, path))
        return DEVICE
    if on_device is None and not isinstance(written, LocationSettings):
        return Location()
    if written == "device":
        mend = "write where it is: `location: {process_in: […], store_in: […], operators: […]}`"
        sentence = "this kind of backend does not run on this device; a server on it may relay elsewhere"
        problems.append(Problem(sentence, mend, path))
    if not isinstance(written, LocationSettings):
        if written is None:
            mend = "add `location: {process_in: […], store_in: […], operators: […]}`"
            sentence = "without a location it may be anywhere: only classes with `[any]` go there"
            problems.append(Problem(sentence, mend, path[:-1], Severity.WARNING, rests_on=(path,)))
        return Location()
    if written.evidence is Evidence.ATTESTED and not pinned:
        mend = "add `tls: {root_certificates: …}` with the place's own certificates, or claim `contractual`"
        sentence, proof = "nothing proves this place: attested needs pinned roots", (*path[:-1], "tls")
        if on_device is not None:
            problems.append(Problem(sentence, mend, (*path, "evidence"), rests_on=(proof,)))
    read: list[Problem] = []
    location = Location(
        _somewhere(written.process_in, places, (*path, "process_in"), read),
        ANYWHERE if written.store_in is None else places.read(written.store_in, (*path, "store_in"), read),
        ANYWHERE
        if written.operators is None
        else _named(
            written.operators,
            read_operators(written.operators, places, (*path, "operators"), read),
            (*path, "operators"),
            read,
        ),
        written.evidence,
    )
    # The names of places are declared in the policy.
    problems += [replace(each, rests_on=tuple(("policy", *place) for place in each.rests_on)) for each in read]
    return location


def _somewhere(names: tuple[str, ...] | None, places: Places, path: Path, problems: list[Problem]) -> PlaceSet:
    if names is None:
        return ANYWHERE
    return _named(names, places.read(names, path, problems), path, problems)


def _named(names: tuple[str, ...], found: PlaceSet, path: Path, problems: list[Problem]) -> PlaceSet:
    # An empty set would lie within every class's.
    if not names:
        problems.append(Problem("content is always processed somewhere, by someone", "name it, or write `[any]`", path))
    return found
