"""The places that a policy can name: countries, dated groups of them, and sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import InvalidRequest
from ..core.place import ANYWHERE, Place, PlaceSet
from ..core.problem import Path, Problem
from ..core.request import Residency
from ..core.suggestion import closest, one_of

_SITE = "site:"
_KEYS = ("process_in", "store_in", "operators")


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of countries, as it stood on a day, by a source; ``until`` is the last day to rely upon it."""

    members: frozenset[str]
    as_of: str
    source: str
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """What names of places mean. ``sites`` maps a site to its country; ``mistaken`` a wrong code to the right one."""

    countries: Mapping[str, str]
    groups: Mapping[str, Group]
    mistaken: Mapping[str, str]
    sites: Mapping[str, str]

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Places:
        """The countries and groups of ``data/places.json``, without sites."""
        groups = {
            name: Group(frozenset(group["members"]), group["as_of"], group["source"], group.get("until"))
            for name, group in data["groups"].items()
        }
        return cls(data["countries"]["names"], groups, data["mistaken"], {})

    def names(self, places: PlaceSet) -> frozenset[str] | None:
        """The names of all that lies within a set: its countries and sites, and the sites of its countries."""
        if places.anywhere:
            return None
        sites = {Place(country, site) for site, country in self.sites.items()}
        within = {site for site in sites if PlaceSet.of([site]).lies_within(places)}
        return frozenset(map(str, within | places.places))

    def read(self, names: Sequence[str], path: Path, problems: list[Problem]) -> PlaceSet:
        """The set that these names mean. A name that means nothing adds a problem and no place."""
        if "any" in names and len(names) > 1:
            problems.append(Problem("`any` stands alone", "write `[any]`, or the places without it", path))
        places: set[Place] = set()
        for index, name in enumerate(names):
            found = set() if name == "any" else self._find(name)
            if found is None:
                declared = ("sites", name.removeprefix(_SITE)) if name.startswith(_SITE) else ("groups", name)
                sentence, mend = f"{name!r} is no known place", self._mend(name)
                problems.append(Problem(sentence, mend, (*path, index), rests_on=(declared,)))
            else:
                places |= found
        return ANYWHERE if "any" in names else PlaceSet.of(places)

    def read_residency(self, value: str | Sequence[str] | Mapping[str, Sequence[str]]) -> Residency:
        """A caller's narrowing. One place or a list bounds processing, storing and operators alike.

        A mapping bounds only the keys that it gives. Raises `InvalidRequest` for what is not known.
        """
        if not isinstance(value, Mapping):
            value = dict.fromkeys(_KEYS, [value] if isinstance(value, str) else value)
        problems = [Problem(f"there is no key {key!r}", one_of(key, _KEYS)) for key in value if key not in _KEYS]
        sets = {key: self.read(value[key], (key,), problems) for key in _KEYS if key in value}
        if problems:
            told = dict.fromkeys(f"{each.sentence}; {each.mend}" for each in problems)  # a list is read three times
            raise InvalidRequest(f"residency: {'; '.join(told)}")
        return Residency(sets.get("process_in"), sets.get("store_in"), sets.get("operators"))

    def describe(self, places: PlaceSet) -> str:
        """The set as people write it: whole groups by their names."""
        if places.anywhere:
            return "[any]"
        names: list[str] = []
        rest = set(places.places)
        for name, group in sorted(self.groups.items(), key=lambda each: -len(each[1].members)):
            members = {Place(code) for code in group.members}
            if members <= rest:
                names.append(name)
                rest -= members
        return "[" + ", ".join([*names, *sorted(map(str, rest))]) + "]"

    def _find(self, name: str) -> set[Place] | None:
        if name.startswith(_SITE):
            site = name.removeprefix(_SITE)
            return {Place(self.sites[site], site)} if site in self.sites else None
        if name in self.groups:
            return {Place(code) for code in self.groups[name].members}
        return {Place(name)} if name in self.countries else None

    def _mend(self, name: str) -> str:
        if name in self.mistaken:
            return f"write {self.mistaken[name]!r}: ISO 3166-1 knows {self.countries[self.mistaken[name]]} by that code"
        if name.startswith(_SITE):
            site = name.removeprefix(_SITE)
            return f"declare it: `sites: {{{site}: {{in: …}}}}`" + _perhaps(site, self.sites, _SITE)
        if name == "device":
            return "leave it out: this device is always permitted; `[]` permits nothing else"
        if name in self.sites:
            return f"write 'site:{name}'"
        code = next((code for code, country in self.countries.items() if country.casefold() == name.casefold()), None)
        if code is not None:
            return f"write {code!r}"
        if name.upper() in self.countries or name.upper() in self.groups:
            return f"write {name.upper()!r}"
        groups = ", ".join(sorted(self.groups))
        return f"write an ISO 3166-1 alpha-2 code such as DE, a group ({groups}), `site:NAME` or `[any]`" + _perhaps(
            name, self.groups
        )


def _perhaps(name: str, known: Iterable[str], prefix: str = "") -> str:
    match = closest(name, known)
    return "" if match is None else f"; or did you mean '{prefix}{match}'?"
