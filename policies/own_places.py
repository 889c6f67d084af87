"""The sites and groups that a policy declares itself, beside the places that are known."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from ..core.problem import Path, Problem, Severity
from .places import Group, Places
from .settings import GroupSettings, PolicySettings


def read_places(settings: PolicySettings, places: Places) -> tuple[Places, list[Problem]]:
    """The places that this policy can name: those given, its own groups and sites.

    Problems' paths count from the policy.
    """
    problems: list[Problem] = []
    groups = {
        name: group
        for name, written in settings.groups.items()
        if (group := _group(name, written, places, problems)) is not None
    }
    sites: dict[str, str] = {}
    for name, site in settings.sites.items():
        found: list[Problem] = []
        meant = places.read((site.in_,), (), found)
        path: Path = ("sites", name, "in")
        problems += [replace(each, path=path) for each in found]
        if site.in_ in places.countries:
            sites[name] = site.in_
        elif meant.anywhere or meant.places:
            problems.append(Problem(f"a site stands in one country, not in {site.in_}", "name it", path))
    return replace(places, groups={**places.groups, **groups}, sites=sites), problems


def expired_groups(settings: PolicySettings, places: Places, today: date) -> list[Problem]:
    """Warnings of groups that may no longer be relied upon: the policy's own, and those of ``places`` in its classes.

    Days that are none are left to `read_places`.
    """
    own = [
        Problem(
            f"the group {name!r} could be relied upon until {group.until}",
            f"look it up anew ({group.source}), then write `as_of` and `until` anew",
            ("groups", name, "until"),
            Severity.WARNING,
        )
        for name, group in settings.groups.items()
        if _is_over(group.until, today)
    ]
    known = [
        Problem(
            f"the group {name!r} as it comes with edgewise could be relied upon until {places.groups[name].until}",
            "look up what holds now, and name a group of your own in its place, declared below `groups:`",
            ("data_classes", data_class, key, at),
            Severity.WARNING,
        )
        for data_class, written in settings.data_classes.items()
        for key in ("process_in", "store_in", "operators")
        for at, name in enumerate(getattr(written, key) or ())
        if name in places.groups and name not in settings.groups and _is_over(places.groups[name].until, today)
    ]
    return own + known


def _is_over(until: str | None, today: date) -> bool:
    last = None if until is None else _day(until)
    return last is not None and last < today


def _group(name: str, written: GroupSettings, places: Places, problems: list[Problem]) -> Group | None:
    path: Path = ("groups", name)
    found: list[Problem] = []
    if name in ("any", "device", "remote") or name in places.countries or name in places.groups or ":" in name:
        found.append(Problem(f"{name!r} already means something else", "give the group another name", path))
    for at, code in enumerate(written.members):
        if code not in places.countries:
            mend = f"write {places.mistaken[code]!r}" if code in places.mistaken else "write ISO 3166-1 alpha-2 codes"
            found.append(Problem(f"{code!r} is no country", mend, (*path, "members", at)))
    for key, day in (("as_of", written.as_of), ("until", written.until)):
        if day is not None and _day(day) is None:
            found.append(Problem(f"{day!r} is no day", "write one such as 2025-12-31", (*path, key)))
    problems += found
    return None if found else Group(frozenset(written.members), written.as_of, written.source, written.until)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
