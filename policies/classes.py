"""Data classes as written become walls: missing keys filled in, what they narrow included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..core.place import ANYWHERE, Evidence, PlaceSet
from ..core.problem import Path, Problem
from ..core.suggestion import one_of
from .places import Places
from .settings import DataClassSettings
from .walls import Wall


def own_walls(classes: Mapping[str, DataClassSettings], places: Places, problems: list[Problem]) -> dict[str, Wall]:
    """Every class's wall as it is written, without what it narrows. Mistakes add problems."""
    return {name: _own_wall(name, each, places, problems) for name, each in classes.items()}


def build_walls(classes: Mapping[str, DataClassSettings], places: Places, problems: list[Problem]) -> dict[str, Wall]:
    """Every class's effective wall. Mistakes add problems; what is built beside them is not to be used."""
    own = own_walls(classes, places, problems)
    for name, each in classes.items():
        for index, parent in enumerate(each.narrows):
            path: Path = ("data_classes", name, "narrows", index)
            if parent not in classes:
                declared = (("data_classes", parent),)
                mend = one_of(parent, classes)
                problems.append(Problem(f"there is no data class {parent!r}", mend, path, rests_on=declared))
            elif name in _ancestors(parent, classes):
                problems.append(Problem(f"{name!r} narrows itself", "remove one of the circle's `narrows`", path))
    walls: dict[str, Wall] = {}
    for name in classes:
        wall = own[name]
        for ancestor in sorted(_ancestors(name, classes)):
            wall = wall.meet(own[ancestor])
        walls[name] = wall
    return walls


def without(classes: Mapping[str, DataClassSettings], handling: Literal["queue", "hedge"]) -> frozenset[str]:
    """The classes that may not be handled so, by themselves or by what they narrow."""
    return frozenset(
        name for name in classes if not all(getattr(classes[each], handling) for each in _ancestors(name, classes))
    )


def _ancestors(name: str, classes: Mapping[str, DataClassSettings]) -> set[str]:
    """The class and all that it narrows, directly or not."""
    found: set[str] = set()
    open_names = [name]
    while open_names:
        each = open_names.pop()
        if each not in found and each in classes:
            found.add(each)
            open_names += classes[each].narrows
    return found


def _own_wall(name: str, written: DataClassSettings, places: Places, problems: list[Problem]) -> Wall:
    path: Path = ("data_classes", name)
    if written.process_in is None and not written.narrows:
        mend = "add `process_in: [any]`, or the countries, groups and sites where it may be processed"
        sentence = f"the data class {name!r} does not say where it may be processed"
        concluded_from = ((*path, "process_in"), (*path, "narrows"))
        problems.append(Problem(sentence, mend, path, rests_on=concluded_from))
    process_in = (
        ANYWHERE if written.process_in is None else places.read(written.process_in, (*path, "process_in"), problems)
    )
    store_in = process_in if written.store_in is None else places.read(written.store_in, (*path, "store_in"), problems)
    operators = process_in
    if written.operators is not None:
        operators = read_operators(written.operators, places, (*path, "operators"), problems)
    return Wall(process_in, store_in, operators, written.evidence or Evidence.DECLARED)


def read_operators(names: tuple[str, ...], places: Places, path: Path, problems: list[Problem]) -> PlaceSet:
    """Operators are told by the country that can compel them; a site compels nobody."""
    for index, name in enumerate(names):
        if name.startswith("site:"):
            mend = "write the country that the operator answers to"
            problems.append(Problem(f"an operator is not a site: {name!r}", mend, (*path, index)))
    return places.read(tuple(name for name in names if not name.startswith("site:")), path, problems)
