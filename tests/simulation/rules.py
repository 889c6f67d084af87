"""What the documentation says of walls and rules, once more and naively: sets of points, and plain conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from .requests import Ask
from .world import EVIDENCE, BackendPlan, ClassPlan, Places, RulePlan, World

_POINTS = {
    "NL": {"NL"},
    "DE": {"DE", "site:praxis"},
    "US": {"US"},
    "CH": {"CH"},
    "NO": {"NO"},
    "site:praxis": {"site:praxis"},
    "EU": {"NL", "DE", "site:praxis", "elsewhere in the EU"},
    "EEA": {"NL", "DE", "site:praxis", "elsewhere in the EU", "NO", "elsewhere in the EEA"},
}
"""A place is the set of the points in it. A site is a point of its country."""

_EVERYWHERE = set().union(*_POINTS.values()) | {"elsewhere"}

Condition = Callable[[Ask, Collection[str], str], bool | None]
"""Whether it holds for a request, its effective classes and the link's state; ``None`` where it fails."""

CONDITIONS: dict[str, Condition] = {
    'request.task == "embed"': lambda ask, classes, link: ask.task == "embed",
    'request.priority == "high"': lambda ask, classes, link: ask.priority == "high",
    'request.data_class == "public"': lambda ask, classes, link: "public" in classes,
    '"public" in request.data_classes && request.task == "generate"': lambda ask, classes, link: (
        "public" in classes and ask.task in ("generate", "stream")
    ),
    "request.prompt_tokens > 500": lambda ask, classes, link: ask.long,
    'connectivity.state == "offline"': lambda ask, classes, link: link == "offline",
    'request.tags["ward"] == "a"': lambda ask, classes, link: None if ask.tag is None else ask.tag == "a",
    "connectivity.metered": lambda ask, classes, link: True,
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds where a request's content may go: its data classes, and what callers narrowed it to."""

    classes: frozenset[str] = frozenset()
    residencies: frozenset[tuple[str, ...]] = frozenset()

    def __or__(self, other: Bounds) -> Bounds:
        return Bounds(self.classes | other.classes, self.residencies | other.residencies)


def own_bounds(world: World, ask: Ask) -> Bounds:
    """Those that a request brings with it."""
    residencies = frozenset() if ask.residency is None else frozenset([tuple(ask.residency)])
    return Bounds(frozenset(effective_classes(world, ask)), residencies)


def effective_classes(world: World, ask: Ask) -> set[str]:
    """The classes that hold for a request by itself: those given, and the default's for content without one."""
    classes = set(ask.classes) | {each for each in ask.message_classes if each is not None}
    has_unclassed = not ask.classes and (not ask.message_classes or None in ask.message_classes)
    if has_unclassed:
        classes |= set(world.classes) if world.default_class is None else {world.default_class}
    return classes


def permitted(world: World, name: str, ask: Ask, bounds: Bounds, link: str) -> bool:
    """Whether a request's content may go to a backend, as the link stands."""
    backend = world.plan_of(name)
    if ask.backends and name not in ask.backends:
        return False
    if not backend.on_device and link == "offline":
        return False
    if not within_walls(world, name, bounds):
        return False
    return not any(_takes_away(rule, backend, ask, bounds.classes, link) for rule in world.rules)


def within_walls(world: World, name: str, bounds: Bounds) -> bool:
    """Whether a world's walls permit a backend."""
    backend = world.plan_of(name)
    if backend.on_device:
        return True
    if not bounds.classes <= world.classes.keys():  # what nobody knows stays here
        return False
    walls = [world.classes[each] for each in _with_narrowed(world, bounds.classes)]
    process_in = _points(backend.location.get("process_in"))
    return all(_fits(backend, wall) for wall in walls) and all(
        process_in <= _points(list(residency)) for residency in bounds.residencies
    )


def _with_narrowed(world: World, classes: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for start in classes:
        name: str | None = start
        while name is not None:
            found.add(name)
            name = world.classes[name].narrows
    return found


def _fits(backend: BackendPlan, wall: ClassPlan) -> bool:
    process_in = wall.places.get("process_in")
    limits: dict[str, list[str] | None] = {
        "process_in": process_in,
        "store_in": wall.places.get("store_in", process_in),
        "operators": wall.places.get("operators", process_in),
    }
    location: Places = backend.location
    inside = all(_points(location.get(key)) <= _points(limit) for key, limit in limits.items())
    return inside and EVIDENCE.index(backend.evidence) >= EVIDENCE.index(wall.evidence)


def _points(places: list[str] | None) -> set[str]:
    """What is not written is anywhere."""
    if places is None or "any" in places:
        return _EVERYWHERE
    return set().union(*(_POINTS[each] for each in places))


def _takes_away(rule: RulePlan, backend: BackendPlan, ask: Ask, classes: Collection[str], link: str) -> bool:
    applies = True if rule.condition is None else CONDITIONS[rule.condition](ask, classes, link)
    if applies is False:  # a condition that fails takes away all the same
        return False
    names = {backend.name, backend.label, "device" if backend.on_device else "remote"}
    if "deny" in rule.effects:
        return bool(names & set(rule.effects["deny"]))
    return "only" in rule.effects and not names & set(rule.effects["only"])
