"""Runs one world: the real router in virtual time, its callers, its backends, and the judgement of it all."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter
from edgewise.router.config import Configuration
from edgewise.testing import VirtualTimeLoop

from .carrying import Outcome, carry
from .configuration import configuration_of
from .judge import Judge
from .requests import Ask, make_asks
from .rules import Bounds, own_bounds
from .simulated import SimulatedBackend
from .world import World, make_world

REQUESTS = 100
"""How many requests a world has."""

_AFTERWARDS = 5.0
"""Seconds after the last request, by which everything that it began has ended."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to. ``digest`` is the same for the same outcomes; ``violations`` are broken promises."""

    seed: int
    requests: int
    attempts: int
    ends: dict[str, int]
    digest: str
    violations: tuple[str, ...]


class _PausingLoop(VirtualTimeLoop):
    """A loop whose process may be stopped for a while: time passes, and nothing runs. A world begins at 0."""

    def __init__(self) -> None:
        super().__init__(begins_at=0.0)

    def pause(self, seconds: float) -> None:
        self._jumping_selector.now += seconds


class _WallClock:
    """The time of day as this device believes it to be, which somebody may set anew."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at_zero = datetime(2026, 3, 2, 9, 30)

    def __call__(self) -> datetime:
        return self._at_zero + timedelta(seconds=self._loop.time())

    def jump(self, seconds: float) -> None:
        self._at_zero += timedelta(seconds=seconds)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}")


def simulate(seed: int, requests: int = REQUESTS) -> Report:
    """Run a seed's world to its end."""
    world = make_world(seed)
    listener = _Listener()
    log = logging.getLogger("edgewise")
    log.addHandler(listener)
    propagated, log.propagate = log.propagate, False
    try:
        with asyncio.Runner(loop_factory=_PausingLoop) as runner:
            return runner.run(_run(world, make_asks(world, requests), listener))
    finally:
        log.removeHandler(listener)
        log.propagate = propagated


async def _run(world: World, asks: list[Ask], listener: _Listener) -> Report:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _PausingLoop)
    complaints: list[str] = []
    loop.set_exception_handler(
        lambda _, context: complaints.append(f"{context['message']}: {context.get('exception')!r}")
    )
    wall = _WallClock(loop)
    backends = {plan.name: SimulatedBackend(plan, world.seed) for plan in world.backends}
    router = AsyncRouter(
        configuration_of(world),
        backends=backends,
        random_source=random.Random(world.seed),
        wall_clock=wall,
        sample=DeviceFacts,
    )
    judge = Judge(world, backends)
    async with router:
        for at, seconds in world.pauses:
            loop.call_at(at, _pause, loop, seconds, judge)
        for at, seconds in world.clock_jumps:
            loop.call_at(at, wall.jump, seconds)
        for at, state in world.switches:
            loop.call_at(at, router.connectivity.force, state)
        for at, newer in world.reloads:
            loop.call_at(at, _reload, router, configuration_of(newer), newer, judge)
        outcomes = await _ask_all(router, judge, asks)
        await asyncio.sleep(_AFTERWARDS)
        judge.nothing_is_left(router)
        judge.budgets(router, outcomes)
    for outcome in outcomes:
        judge.request(outcome)
    judge.world(listener.lines, complaints)
    ends: dict[str, int] = {}
    for outcome in outcomes:
        ends[outcome.end] = ends.get(outcome.end, 0) + 1
    attempts = sum(len(backend.calls) for backend in backends.values())
    return Report(world.seed, len(asks), attempts, ends, _digest(outcomes), tuple(judge.violations))


async def _ask_all(router: AsyncRouter, judge: Judge, asks: list[Ask]) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    conversations: dict[str, Bounds] = {}
    tasks = []
    for ask in asks:
        if (wait := ask.at - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(_ask(router, judge, ask, conversations)))
    return [await task for task in tasks]


async def _ask(router: AsyncRouter, judge: Judge, ask: Ask, conversations: dict[str, Bounds]) -> Outcome:
    world = judge.newest
    bounds = own_bounds(world, ask)
    if ask.conversation is not None:
        bounds |= conversations.get(ask.conversation, Bounds())
        if bounds.classes <= world.classes.keys():  # else it is refused, and leaves no trace
            conversations[ask.conversation] = bounds
    outcome = Outcome(ask, bounds, judge.era, router.connectivity.state.value, asyncio.get_running_loop().time())
    await carry(router, outcome)
    return outcome


def _reload(router: AsyncRouter, configuration: Configuration, newer: World, judge: Judge) -> None:
    """What `AsyncRouter.reload` does once a file has been read."""
    judge.reloaded(asyncio.get_running_loop().time(), newer)
    router._take(configuration)


def _pause(loop: _PausingLoop, seconds: float, judge: Judge) -> None:
    judge.pauses.append((loop.time(), loop.time() + seconds))
    loop.pause(seconds)


def _digest(outcomes: list[Outcome]) -> str:
    record = [(each.end, round(each.ended, 6), each.shown, each.rows) for each in outcomes]
    return hashlib.sha256(repr(record).encode()).hexdigest()[:16]
