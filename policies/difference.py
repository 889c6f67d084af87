"""Two policies side by side: which request may now go where it could not go before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.place import Location
from .planner import Policy
from .reach import describe


@dataclass(frozen=True, slots=True)
class Change:
    """Content of these classes (none: content without one) may now, or may no longer, go to a backend, and why."""

    data_classes: tuple[str, ...]
    backend: str
    why: str


@dataclass(frozen=True, slots=True)
class Difference:
    """``opened`` is what may be possible now and was not before: walls and refusing rules leave out no such change.

    ``closed`` is what was possible and is certain to be no more.
    """

    opened: tuple[Change, ...]
    closed: tuple[Change, ...]


def compare(old: Policy, new: Policy) -> Difference:
    """What the new policy opens and closes for each class, and for content without one.

    A request of several classes is refused where one of them is, so what opens for it opens for one of them.
    """
    known = sorted({*old.walls.by_class, *new.walls.by_class})
    positions = {terms.name: at for at, terms in enumerate(old.terms)}
    later = {terms.name: at for at, terms in enumerate(new.terms)}
    opened: list[Change] = []
    for name, at in later.items():
        before = positions.get(name)
        opened += [Change((each,), name, why) for each in known if (why := _opened(old, new, before, at, (each,)))]
        if why := _opened_unclassed(old, new, before, at):
            opened.append(Change((), name, why))
    closed = [
        Change((each,), name, why)
        for name, at in positions.items()
        for each in old.walls.by_class
        if old.reach.example(at, (each,)) is not None and (why := _never(new, later.get(name), (each,))) is not None
    ]
    return Difference(tuple(opened), tuple(closed))


def _opened(old: Policy, new: Policy, before: int | None, at: int, classes: tuple[str, ...]) -> str | None:
    if not _known(new, classes):
        return None
    example = new.reach.example(at, classes)
    if example is None:
        return None
    if not _known(old, classes):
        return "the class is new"
    if before is None:
        return "the backend is new"
    wider = _wider(old.terms[before].location, new.terms[at].location)
    if wider is not None:
        return wider
    objection = old.reach.objection(before, classes)
    if objection is not None:
        return f"before: {objection}"
    freed = new.reach.freed(at, classes, old.reach, before)
    if freed is None:
        return None
    rule, assignment = freed
    return f"before: rule {rule!r} refused it" + (f", where {describe(assignment)}" if assignment else "")


def _opened_unclassed(old: Policy, new: Policy, before: int | None, at: int) -> str | None:
    """Content without a class, where what holds for it has changed."""
    then, now = old.walls.effective((), True), new.walls.effective((), True)
    if set(then) <= set(now) or new.reach.example(at, now) is None:
        return None
    if before is None:
        return "the backend is new"
    objection = old.reach.objection(before, then)
    if objection is None and not old.reach.may_refuse(before):
        return None
    return f"its class is now {' + '.join(now) or 'none'}; before: {objection or 'rules could refuse it'}"


def _never(policy: Policy, at: int | None, classes: tuple[str, ...]) -> str | None:
    if at is None:
        return "the backend is gone"
    if not _known(policy, classes):
        return "the class is gone"
    return policy.reach.objection(at, classes)


def _known(policy: Policy, classes: tuple[str, ...]) -> bool:
    return all(name in policy.walls.by_class for name in classes)


def _wider(before: Location, now: Location) -> str | None:
    if now.on_device:
        return None
    if before.on_device:
        return "it ran on this device"
    for key in ("process_in", "store_in", "operators"):
        was, is_ = getattr(before, key), getattr(now, key)
        if not is_.lies_within(was):
            return f"its {key} is now {is_}; before: {was}"
    if now.evidence < before.evidence:
        return f"its evidence is now {now.evidence}; before: {before.evidence}"
    return None


def changed_keys(old: Mapping[str, object], new: Mapping[str, object], path: str = "") -> list[str]:
    """The keys whose values differ, as dotted paths."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        name = f"{path}.{key}" if path else key
        one, other = old.get(key), new.get(key)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += changed_keys(one, other, name)
        else:
            found.append(name)
    return found
