"""A seed is a world: backends, a policy, and how well everything goes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .faults import CUT, LASTING, LOST, OVERLOADED, PASSING, SILENT, Fault

Places = dict[str, list[str]]
"""The keys of a location or a data class that are written, each with its places."""

TASKS = ("generate", "embed", "classify", "infer", "count_tokens")
_COUNTRIES = ("NL", "DE", "US", "CH", "NO")
_SETS: tuple[list[str], ...] = (["any"], ["EU"], ["EU", "CH"], ["EEA", "US"], ["DE", "NL"], ["DE"], ["site:praxis"])
EVIDENCE = ("declared", "contractual")


@dataclass(frozen=True, slots=True)
class Episode:
    """From ``start`` to ``end``, in seconds, every call meets ``fault``; those that run are hit at the start."""

    start: float
    end: float
    fault: Fault


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """One backend as configured, and how it behaves. Times are seconds. ``breaks_late``: within its answers."""

    name: str
    on_device: bool
    location: Places
    evidence: str
    quality: float
    label: str
    price: float
    tasks: tuple[str, ...]
    context_tokens: int
    continues: bool
    resumes: bool
    logprobs: bool
    max_concurrency: int
    load: float
    first_after: float
    every: float
    fault_share: float
    faults: tuple[Fault, ...]
    breaks_late: bool
    slow_to_stop: float
    episodes: tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """A data class as configured."""

    places: Places
    evidence: str
    narrows: str | None


@dataclass(frozen=True, slots=True)
class RulePlan:
    """A rule as configured. ``condition`` is a key of `rules.CONDITIONS`, ``None`` where it always applies."""

    name: str
    condition: str | None
    effects: Mapping[str, list[str]]
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class World:
    """All that one seed stands for, but for its requests.

    In a ``lossy`` one answers are long, and break on their way. ``switches`` are (time, state of the link), ``pauses``
    (time, seconds for which nothing runs), ``clock_jumps`` (time, seconds by which the wall clock is set), ``reloads``
    (time, the world as it is configured from then on).
    """

    seed: int
    lossy: bool
    backends: tuple[BackendPlan, ...]
    classes: Mapping[str, ClassPlan]
    default_class: str | None
    rules: tuple[RulePlan, ...]
    latency_budget: str
    first_token_budget: str | None
    max_attempts: int
    stream_failover: str
    duration: float
    switches: tuple[tuple[float, str | None], ...]
    pauses: tuple[tuple[float, float], ...]
    clock_jumps: tuple[tuple[float, float], ...]
    reloads: tuple[tuple[float, World], ...] = ()

    def plan_of(self, name: str) -> BackendPlan:
        """The backend of this name."""
        return next(backend for backend in self.backends if backend.name == name)


def make_world(seed: int) -> World:
    """The world of a seed."""
    source = random.Random(f"world {seed}")
    duration = source.choice([10.0, 20.0, 40.0])
    lossy = source.random() < 0.1
    backends = tuple(_backend(source, at, duration, lossy=lossy) for at in range(source.choice([1, 2, 2, 3, 3, 4])))
    classes = _classes(source)
    world = World(
        seed=seed,
        lossy=lossy,
        backends=backends,
        classes=classes,
        default_class=source.choice([None, "public", "public", *classes]),
        rules=tuple(_rule(source, at, backends) for at in range(source.choice([0, 0, 0, 1, 2]))),
        latency_budget=source.choice(["1s", "3s", "30s"]),
        first_token_budget=source.choice([None, None, "400ms", "2s"]),
        max_attempts=source.choice([1, 2, 3, 5]),
        stream_failover=source.choice(["continue", "continue", "none"]),
        duration=duration,
        switches=_switches(source, duration),
        pauses=_pauses(source, duration),
        clock_jumps=_clock_jumps(source, duration),
    )
    return replace(world, reloads=_reloads(world))


def _reloads(world: World) -> tuple[tuple[float, World], ...]:
    source = random.Random(f"reloads {world.seed}")
    if source.random() < 0.8:
        return ()
    times = sorted(source.uniform(0.0, world.duration) for _ in range(source.randint(1, 2)))
    return tuple((at, _reconfigured(source, world)) for at in times)


def _reconfigured(source: random.Random, world: World) -> World:
    """The same backends, at other places perhaps, with tighter or looser walls, and other rules."""
    classes = dict(world.classes)
    for name, each in list(classes.items()):
        dice = source.random()
        narrowed = {other.narrows for other in classes.values()} | {world.default_class, "public"}
        if dice < 0.1 and name not in narrowed:
            del classes[name]
        elif dice < 0.6:
            classes[name] = replace(
                each, places=_places(source, source.choice(_SETS)), evidence=source.choice(EVIDENCE)
            )
    backends = tuple(
        backend if backend.on_device or source.random() < 0.8 else replace(backend, location=_location(source))
        for backend in world.backends
    )
    rules = tuple(_rule(source, at, backends) for at in range(source.choice([0, 0, 1])))
    return replace(world, classes=classes, backends=backends, rules=rules)


def _backend(source: random.Random, at: int, duration: float, *, lossy: bool) -> BackendPlan:
    on_device = source.random() < (0.6 if at == 0 else 0.2)
    sound = source.random() < 0.3 and not lossy
    count = source.randint(1, 5)
    faults = source.sample(PASSING, count)
    if source.random() < 0.1:
        faults = [source.choice(LASTING)]
    if lossy:
        faults = [LOST, LOST, SILENT, CUT]
    return BackendPlan(
        name=f"{'phone' if on_device else 'cloud'}-{at}",
        on_device=on_device,
        location={} if on_device else _location(source),
        evidence=source.choice(EVIDENCE),
        quality=source.choice([0.2, 0.5, 0.52, 0.9]),
        label=source.choice(["metered", "trusted"]),
        price=source.choice([0.0, 1.0, 10.0]),
        tasks=TASKS if source.random() < 0.7 else ("generate",),
        context_tokens=source.choice([1000, 4000, 100_000]),
        continues=source.random() < 0.7,
        resumes=not on_device and source.random() < 0.5,
        logprobs=source.random() < 0.7,
        max_concurrency=source.choice([1, 2, 8, 64]),
        load=source.choice([0.0, 0.0, 0.5, 5.0]) if on_device else 0.0,
        first_after=source.choice([0.02, 0.1, 0.4, 1.0]),
        every=source.choice([0.002, 0.02, 0.1]),
        fault_share=0.0 if sound else 0.5 if lossy else source.choice([0.03, 0.2, 0.6, 1.0]),
        faults=() if sound else tuple(faults),
        breaks_late=lossy,
        slow_to_stop=0.0 if source.random() < 0.8 else source.choice([0.03, 0.3, 2.0]),
        episodes=() if sound else _episodes(source, duration),
    )


def _location(source: random.Random) -> Places:
    where = source.choice([["DE"], ["NL"], ["US"], ["CH"], ["NO"], ["site:praxis"], ["NL", "DE"]])
    location: Places = {"process_in": where}
    if source.random() < 0.8:
        location["store_in"] = source.choice([[], where, ["US"]])
    if source.random() < 0.8:
        location["operators"] = [source.choice(_COUNTRIES)]
    return {} if source.random() < 0.1 else location


def _episodes(source: random.Random, duration: float) -> tuple[Episode, ...]:
    if source.random() < 0.5:
        return ()
    fault = source.choice([LOST, LOST, SILENT, OVERLOADED])
    if source.random() < 0.3:  # a link that flaps
        start, length = source.uniform(0.0, duration / 2), source.uniform(0.2, 1.5)
        return tuple(Episode(start + 2 * n * length, start + (2 * n + 1) * length, fault) for n in range(4))
    start = source.uniform(0.0, duration)
    return (Episode(start, start + source.uniform(0.5, duration / 2), fault),)


def _classes(source: random.Random) -> dict[str, ClassPlan]:
    classes = {"public": ClassPlan({"process_in": ["any"]}, "declared", None)}
    for name in source.sample(["personal", "health", "secret"], source.randint(1, 3)):
        narrows = source.choice([None, None, *classes])
        process_in = None
        if narrows is None or source.random() < 0.7:
            process_in = [] if name == "secret" else source.choice(_SETS)
        classes[name] = ClassPlan(_places(source, process_in), source.choice(EVIDENCE), narrows)
    return classes


def _places(source: random.Random, process_in: list[str] | None) -> Places:
    places: Places = {} if process_in is None else {"process_in": process_in}
    if source.random() < 0.5:
        places["store_in"] = source.choice([[], *_SETS])
    if source.random() < 0.5:
        places["operators"] = [each for each in source.choice(_SETS) if not each.startswith("site:")]
    return places


def _rule(source: random.Random, at: int, backends: tuple[BackendPlan, ...]) -> RulePlan:
    from .rules import CONDITIONS

    targets = [each.name for each in backends] + [each.label for each in backends] + ["remote", "device"]
    condition = source.choice([*CONDITIONS]) if source.random() < 0.8 else None
    kind = source.choice(["deny", "only", "prefer", "avoid", "set"])
    if kind != "set":
        return RulePlan(f"rule {at}", condition, {kind: [source.choice(targets)]})
    settings = source.choice(
        [
            {"latency_budget": "2s"},
            {"first_token_budget": "300ms"},
            {"order": "[latency, cost]"},
            {"stream_failover": "none"},
            {"max_cost": "0.001"},
        ]
    )
    return RulePlan(f"rule {at}", condition, {}, settings)


def _switches(source: random.Random, duration: float) -> tuple[tuple[float, str | None], ...]:
    if source.random() < 0.7:
        return ()
    off, states = source.uniform(0.0, duration), ("offline", source.choice([None, "online", "limited"]))
    return tuple((off + n * 2.0, state) for n, state in enumerate(states * source.randint(1, 2)))


def _pauses(source: random.Random, duration: float) -> tuple[tuple[float, float], ...]:
    if source.random() < 0.8:
        return ()
    return tuple((source.uniform(0.0, duration), source.choice([0.1, 1.0, 30.0])) for _ in range(2))


def _clock_jumps(source: random.Random, duration: float) -> tuple[tuple[float, float], ...]:
    if source.random() < 0.8:
        return ()
    return tuple((source.uniform(0.0, duration), source.choice([-86400.0, -1.0, 60.0, 1e9])) for _ in range(2))
