"""Residency: which location a data class permits. Rules and orders come later and only narrow.

A class lists where its data may be; a backend lists where it might go; everything must fit, key by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

from ..core.place import ANYWHERE, NOWHERE, Evidence, Location, PlaceSet
from ..core.request import Residency

Describe = Callable[[PlaceSet], str]


@dataclass(frozen=True, slots=True)
class Wall:
    """The effective limits of a data class: every missing key filled in, what it narrows included."""

    process_in: PlaceSet = ANYWHERE
    store_in: PlaceSet = ANYWHERE
    operators: PlaceSet = ANYWHERE
    evidence: Evidence = Evidence.DECLARED

    @classmethod
    def of(cls, residency: Residency) -> Wall:
        """A caller's own narrowing as a wall; a key that the caller left out narrows nothing."""
        return cls(
            ANYWHERE if residency.process_in is None else residency.process_in,
            ANYWHERE if residency.store_in is None else residency.store_in,
            ANYWHERE if residency.operators is None else residency.operators,
        )

    def meet(self, other: Wall) -> Wall:
        """The limits of both."""
        return Wall(
            self.process_in.meet(other.process_in),
            self.store_in.meet(other.store_in),
            self.operators.meet(other.operators),
            max(self.evidence, other.evidence),
        )

    def objection(self, who: str, location: Location, describe: Describe) -> str | None:
        """Why ``who`` does not permit this location, as one sentence that names the key; ``None`` if it does."""
        if location.on_device:
            return None
        for key, has, permits in (
            ("process_in", location.process_in, self.process_in),
            ("store_in", location.store_in, self.store_in),
            ("operators", location.operators, self.operators),
        ):
            if not has.lies_within(permits):
                return f"{who} permits {key} {describe(permits)}; this backend has {describe(has)}"
        if location.evidence < self.evidence:
            return f"{who} asks for evidence {self.evidence}; this backend's is {location.evidence}"
        return None


DEVICE_ONLY = Wall(NOWHERE, NOWHERE, NOWHERE, Evidence.ATTESTED)
"""Content of no known class: unknown means no."""


@dataclass(frozen=True, slots=True)
class Walls:
    """Every data class's wall, and the class of content that has none."""

    by_class: Mapping[str, Wall]
    default: str | None
    describe: Describe

    def effective(self, named: Iterable[str], unclassed: bool) -> tuple[str, ...]:
        """The classes that hold for a request, sorted: those named, and the default's for content without one.

        With no default class that is every class at once.
        """
        names = set(named)
        if unclassed or not names:
            names |= set(self.by_class) if self.default is None else {self.default}
        return tuple(sorted(names))

    def objection(self, classes: Iterable[str], residency: Residency | None, location: Location) -> str | None:
        """Why these classes, taken together, or the caller's narrowing do not permit a location; ``None`` if they do.

        Fitting each is fitting their meet; asked one by one, the sentence can name the class.
        """
        return next(self.objections(classes, residency, location), None)

    def objections(self, classes: Iterable[str], residency: Residency | None, location: Location) -> Iterator[str]:
        """The objection of each wall that has one."""
        walls = [(f"class {name!r}", self.by_class.get(name, DEVICE_ONLY)) for name in classes]
        if not walls:
            walls = [("content without a data class", DEVICE_ONLY)]
        if residency is not None:
            walls.append(("the caller's residency", Wall.of(residency)))
        for who, wall in walls:
            if (text := wall.objection(who, location, self.describe)) is not None:
                yield text

    def meet(self, classes: Iterable[str], residency: Residency | None = None) -> Wall:
        """The limits of these classes and of a caller's narrowing taken together; of no class, the device's alone."""
        walls = [self.by_class.get(name, DEVICE_ONLY) for name in classes] or [DEVICE_ONLY]
        if residency is not None:
            walls.append(Wall.of(residency))
        return reduce(Wall.meet, walls)
