"""`assert:` promises of a policy, judged when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.place import Location, PlaceSet
from ..core.problem import Path, Problem
from ..core.suggestion import one_of
from .facts import BackendTerms
from .formula import MOST_STEPS, Effort
from .places import Places
from .reach import Reach, describe
from .settings import NeverSettings, PolicySettings

_ANYWHERE, _REMOTE = "any", "remote"


def judge_assertions(
    settings: PolicySettings, terms: Sequence[BackendTerms], places: Places, reach: Reach | None
) -> list[Problem]:
    """Every promise that is not kept, or says nothing. Paths count from the policy.

    Without ``reach``, where what the policy grants cannot be told, only the promises' own words are judged.
    """
    problems: list[Problem] = []
    effort = Effort(MOST_STEPS * 5)
    for index, each in enumerate(settings.assert_):
        path: Path = ("assert", index, "never")
        never = each.never
        if never.data_class not in settings.data_classes:
            mend = one_of(never.data_class, settings.data_classes)
            declared = (("data_classes", never.data_class),)
            sentence = f"there is no data class {never.data_class!r}"
            problems.append(Problem(sentence, mend, (*path, "data_class"), rests_on=declared))
        if not never.reaches:
            mend = "name countries, groups, sites, `any` or `remote`"
            problems.append(Problem("the promise names no place", mend, (*path, "reaches")))
        read: list[Problem] = []
        forbidden = _places(never, places, (*path, "reaches"), read)
        problems += read
        if reach is not None and not read:  # a class that is not there reaches nothing beyond this device
            problems += _broken(never, forbidden, terms, reach, path, effort)
    return problems


def _places(never: NeverSettings, places: Places, path: Path, problems: list[Problem]) -> PlaceSet:
    found = PlaceSet.of(())
    for at, name in enumerate(never.reaches):
        if name not in (_ANYWHERE, _REMOTE):
            one: list[Problem] = []
            found = PlaceSet(found.places | places.read((name,), path, one).places)
            problems += [replace(each, path=(*path, at)) for each in one]
    return found


def _broken(
    never: NeverSettings,
    forbidden: PlaceSet,
    terms: Sequence[BackendTerms],
    reach: Reach,
    path: Path,
    effort: Effort,
) -> list[Problem]:
    problems = []
    for at, each in enumerate(terms):
        touched = _touched(each.location, never.reaches, forbidden)
        example = None if touched is None else reach.example(at, {never.data_class}, effort=effort)
        if example is not None:
            where = f", where {describe(example)}" if example else ""
            sentence = f"the class {never.data_class!r} may reach the backend {each.name!r} ({touched}){where}"
            mend = "narrow the class, deny the backend to it, or take the promise back"
            problems.append(Problem(sentence, mend, path))
    return problems


def _touched(location: Location, reaches: Sequence[str], forbidden: PlaceSet) -> str | None:
    """What of a location is forbidden; ``None`` if nothing is. What may be anywhere may be in each place."""
    if location.on_device:
        return None
    for key, has in (
        ("process_in", location.process_in),
        ("store_in", location.store_in),
        ("operators", location.operators),
    ):
        if has.anywhere and (forbidden.places or _ANYWHERE in reaches):
            return f"{key} is not bound"
        both = has.meet(forbidden)
        if both.places:
            return f"{key} {both}"
    return "it is not on this device" if _REMOTE in reaches else None
