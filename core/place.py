"""Where content may be, and how sure we are of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A country (ISO 3166-1 alpha-2), or a named site inside one."""

    country: str
    site: str | None = None

    def lies_within(self, other: Place) -> bool:
        """A site lies within itself and within its country; a country within itself only."""
        return self == other or (other.site is None and self.country == other.country)

    def __str__(self) -> str:
        return self.country if self.site is None else f"site:{self.site}"


@dataclass(frozen=True, slots=True)
class PlaceSet:
    """A set of places. ``ANYWHERE`` is the set of all, written ``[any]``; it is not a place."""

    places: frozenset[Place]
    anywhere: bool = False

    @classmethod
    def of(cls, places: Iterable[Place]) -> PlaceSet:
        """The set of just these places."""
        return cls(frozenset(places))

    def lies_within(self, other: PlaceSet) -> bool:
        """Whether every place of this set lies within some place of ``other``."""
        if other.anywhere:
            return True
        if self.anywhere:
            return False
        return all(any(mine.lies_within(theirs) for theirs in other.places) for mine in self.places)

    def meet(self, other: PlaceSet) -> PlaceSet:
        """The largest set that lies within both."""
        if self.anywhere:
            return other
        if other.anywhere:
            return self
        return PlaceSet.of(
            mine if mine.lies_within(theirs) else theirs
            for mine in self.places
            for theirs in other.places
            if mine.lies_within(theirs) or theirs.lies_within(mine)
        )

    def names(self) -> list[str]:
        """As it is written, in order."""
        return ["any"] if self.anywhere else sorted(map(str, self.places))

    def __str__(self) -> str:
        return "[" + ", ".join(self.names()) + "]"


ANYWHERE = PlaceSet(frozenset(), anywhere=True)
NOWHERE = PlaceSet(frozenset())


class Evidence(IntEnum):
    """How strong a claim about a place is. A class accepts its own strength and every stronger one."""

    DECLARED = 1
    CONTRACTUAL = 2
    ATTESTED = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Location:
    """Where a backend may process and store content, who operates it, and how strong that claim is.

    ``on_device`` is for engines that run on this device: such a location satisfies every data class.
    """

    process_in: PlaceSet = ANYWHERE
    store_in: PlaceSet = ANYWHERE
    operators: PlaceSet = ANYWHERE
    evidence: Evidence = Evidence.DECLARED
    on_device: bool = False

    def __str__(self) -> str:
        return "device" if self.on_device else f"process_in {self.process_in}, operators {self.operators}"


DEVICE = Location(NOWHERE, NOWHERE, NOWHERE, Evidence.ATTESTED, on_device=True)
