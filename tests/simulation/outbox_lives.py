"""An outbox through several lives of its application: killed or closed, by walls that change, and calm in the end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, EdgewiseError
from edgewise.router.config import Configuration, loads
from edgewise.router.outbox import Entry, Store
from edgewise.router.outbox.leases import LEASE_SECONDS
from edgewise.testing import VirtualTimeLoop

from .carrying import _generate_options
from .configuration import text_of
from .kinds import KINDS
from .requests import Ask, make_asks
from .rules import Bounds, own_bounds
from .simulated import SimulatedBackend
from .world import BackendPlan, ClassPlan, RulePlan, World, make_world

LIVES = 3
"""Lives in which things go wrong; a calm one follows."""

ASKS = 24
"""Requests drawn for a world; those that generate are submitted."""

MORNING = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)
_CALM = 120.0
_MEMORY = "/dev/shm"
"""Where a file is as fast as memory, where there is such a place: the disk is not what is simulated here."""


@dataclass(slots=True)
class Life:
    """One process: its walls, how its backends behave, how it ends. ``began`` is wall-clock time."""

    number: int
    world: World
    began: float
    seconds: float
    killed: bool
    replays: bool
    backends: dict[str, SimulatedBackend] = field(default_factory=dict)

    @property
    def links(self) -> set[str]:
        """The states that the link was in."""
        return {"online", *(state or "online" for _, state in self.world.switches)}


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request with a receipt. ``at`` is wall-clock time."""

    ask: Ask
    bounds: Bounds
    receipt: str
    order_key: str | None
    at: float


@dataclass(slots=True)
class Story:
    """All that happened to one outbox."""

    world: World
    lives: list[Life] = field(default_factory=list)
    submitted: list[Submitted] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    ends: list[str] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    file: bytes = b""
    configurations: dict[str, Configuration] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same story; receipts are random, and not in it."""
        order = {each.receipt: each.ask.number for each in self.submitted}
        ended = [(order.get(name, -1), each.state, each.ending, each.sends) for name, each in self.entries.items()]
        calls = [(name, len(backend.calls)) for life in self.lives for name, backend in life.backends.items()]
        return hashlib.sha256(repr((self.ends, ended, calls)).encode()).hexdigest()[:16]


def tell(seed: int) -> Story:
    """The story of a seed's outbox, from its first life to the calm one."""
    story = Story(make_world(seed))
    source = random.Random(f"outbox {seed}")
    asks = [ask for ask in make_asks(story.world, ASKS) if ask.task in ("generate", "stream")]
    folder = Path(tempfile.mkdtemp(dir=_MEMORY if Path(_MEMORY).is_dir() else None))
    try:
        with _listening(story):
            began = MORNING.timestamp()
            for number in range(LIVES + 1):
                life = _life(source, story.world, number, began)
                story.lives.append(life)
                mine, asks = _share(asks, LIVES - number)
                with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(begins_at=0.0)) as runner:
                    runner.run(_live(story, life, folder / "outbox.db", source, mine))
                began += life.seconds + source.choice([0.0, 10.0, 100.0])
            if (folder / "outbox.db").exists():
                store = Store(folder / "outbox.db")
                story.entries = {str(entry.receipt): entry for entry in store.all(began)}
                store.close()
            story.file = b"".join(file.read_bytes() for file in folder.iterdir())
    finally:
        shutil.rmtree(folder)
    return story


def _share(asks: list[Ask], lives: int) -> tuple[list[Ask], list[Ask]]:
    """Those submitted in this life, and those left for the ``lives`` after it; none in the calm one."""
    if lives == 0:
        return [], []
    count = len(asks) // lives
    return asks[:count], asks[count:]


def _life(source: random.Random, world: World, number: int, began: float) -> Life:
    if number == LIVES:
        calm = replace(world, backends=tuple(map(_sound, world.backends)), switches=(), pauses=())
        return Life(number, calm, began, _CALM, killed=False, replays=False)
    world = replace(world, seed=world.seed + number)
    if number and source.random() < 0.6:
        world = _tightened(source, world)
    seconds = source.choice([20.0, 40.0, 90.0])
    return Life(number, world, began, seconds, source.random() < 0.6, source.random() < 0.8)


def _sound(plan: BackendPlan) -> BackendPlan:
    return replace(plan, fault_share=0.0, faults=(), episodes=(), load=0.0, first_after=0.02, every=0.002)


def _tightened(source: random.Random, world: World) -> World:
    """A policy with a narrower class, or with a rule more."""
    if source.random() < 0.3:
        deny = RulePlan("no more", None, {"deny": [source.choice(world.backends).name]})
        return replace(world, rules=(*world.rules, deny))
    name = source.choice(list(world.classes))
    narrow = ClassPlan({"process_in": source.choice([[], ["DE"], ["site:praxis"]])}, "contractual", None)
    return replace(world, classes={**world.classes, name: narrow})


async def _live(story: Story, life: Life, outbox: Path, source: random.Random, asks: list[Ask]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: story.complaints.append(str(context["message"])))
    life.backends = {plan.name: SimulatedBackend(plan, life.world.seed) for plan in life.world.backends}
    text = (
        text_of(life.world) + "  offline: {outbox: outbox.db, max_entries: 12, when_full: drop_lowest, max_sends: 3}\n"
    )
    if text not in story.configurations:
        story.configurations[text] = loads(text, outbox.parent, environment={}, kinds=KINDS)
    router = AsyncRouter(
        story.configurations[text],
        backends=life.backends,
        random_source=random.Random(f"router {life.world.seed}"),
        wall_clock=lambda: datetime.fromtimestamp(life.began + loop.time(), UTC),
        sample=DeviceFacts,
        replay=life.replays,
    )
    async with router:
        for at, state in life.world.switches:
            loop.call_at(at, router.connectivity.force, state)
        conversations: dict[str, Bounds] = {}
        for ask in asks:
            await asyncio.sleep(source.uniform(0.0, life.seconds / (len(asks) + 1)))
            await _submit(story, life, router, source, ask, conversations)
            await _look(story, router, source)
        if life.number == LIVES:
            await asyncio.sleep(LEASE_SECONDS)  # a process that was killed holds it for so long
            await router.flush()
        await asyncio.sleep(max(0.0, life.seconds - loop.time()))
        if life.killed:
            _kill(router)
        else:
            await _read(story, router)


async def _submit(
    story: Story, life: Life, router: AsyncRouter, source: random.Random, ask: Ask, conversations: dict[str, Bounds]
) -> None:
    bounds = own_bounds(life.world, ask)
    if ask.conversation is not None:
        bounds = conversations[ask.conversation] = bounds | conversations.get(ask.conversation, Bounds())
    order_key, ttl = source.choice([None, None, "a", "b"]), source.choice(["30s", "10m", "1d"])
    at = life.began + asyncio.get_running_loop().time()
    try:
        receipt = await router.submit(ask.messages, order_key=order_key, ttl=ttl, **_generate_options(ask))
    except EdgewiseError as error:
        story.ends.append(type(error).__name__)
    else:
        story.ends.append("submitted")
        story.submitted.append(Submitted(ask, bounds, receipt, order_key, at))


async def _look(story: Story, router: AsyncRouter, source: random.Random) -> None:
    """Now and then, read what has come, or cancel something."""
    if source.random() < 0.2:
        await _read(story, router)
    if story.submitted and source.random() < 0.1:
        receipt = source.choice(story.submitted).receipt
        if await router.cancel(receipt):
            story.cancelled.add(receipt)


async def _read(story: Story, router: AsyncRouter) -> None:
    async for result in router.results():
        text = result.answer.text if result.answer is not None else f"dead: {result.error and result.error.reason}"
        story.told.append((result.receipt, text))


def _kill(router: AsyncRouter) -> None:
    """From here on nothing reaches the disk; what the router does as it ends is what a dead process does not do."""
    database = router._queue.outbox.store.database
    database.close()
    database.path = Path("/dev/null/gone")


@contextmanager
def _listening(story: Story) -> Iterator[None]:
    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            story.logged.append(record.getMessage())

    log, listener = logging.getLogger("edgewise"), Listener(logging.DEBUG)
    log.addHandler(listener)
    propagated, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.propagate = propagated
