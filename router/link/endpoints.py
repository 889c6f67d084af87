"""The evidence: what is known of every remote endpoint and of this device's interfaces, and how it is gathered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from ...backends import Backend
from ...core.failure import AttemptError, FailureKind, PathFault
from .network import Attachment, Network
from .probing import Interest, Probing
from .reach import Reach, told

GRACE = 0.3
"""Seconds for which calls under way outlive the loss of their route: it may come back with them."""

SETTLES = 0.05
"""Seconds for which the operating system's news are gathered before they are judged."""

LOOK_EVERY = 1.0
"""Seconds between two looks at a network that does not say when it changes."""

SLEPT = 1.0
"""Seconds of sleep after which connections are doubted."""

RETURN_JITTER = 0.3
"""Seconds over which the first probes after a loss are spread, so that a thousand devices do not ask as one."""

RECENT = 1.0
"""Seconds within which a sign of life needs no other."""

_MAY_BE_THE_WAY = frozenset(
    {FailureKind.UNREACHABLE, FailureKind.TIMED_OUT, FailureKind.STALLED, FailureKind.TRUNCATED}
)
"""Failures that may lie on the way as well as with the service."""


class Endpoints:
    """All endpoints of a router. ``learned`` hears when something changed; ``interest`` says who wants to know.

    Backends without an endpoint are known by their calls alone, and nothing is held against them.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        network: Network,
        random_source: random.Random,
        interest: Callable[[], Interest],
        learned: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._network = network
        self._random = random_source
        self._interest = interest
        self._learned = learned
        self.reaches = _by_endpoint(backends, self._loop.time)
        self._of_backend = {backend.name: reach for reach in self.reaches for backend in reach.backends}
        self._probing = {
            reach: Probing(reach, network, self.interest, self._ask_the_others, learned, random_source)
            for reach in self.reaches
            if reach.endpoint is not None
        }
        self._over_network = [reach for reach in self._probing if reach.over_network]
        self.attachment: Attachment | None = None
        """What the interfaces say; ``None`` where no endpoint lies beyond them."""
        self._slept = 0.0
        self._looked_at = 0.0
        self._look_due: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._stop_watching: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to watch the operating system's network, if an endpoint lies beyond this device."""
        if self._over_network:
            self._slept = self._network.suspended()
            self._stop_watching = self._network.watch(self._changed)
            self._look()

    def __getitem__(self, backend: str) -> Reach | None:
        """What is known of the way to a backend; ``None`` for one that needs no network."""
        return self._of_backend.get(backend)

    @property
    def watch_name(self) -> str:
        """How changes of the operating system's network are noticed, for people."""
        return (
            self._network.watch_name if self._over_network else "nothing to watch: no endpoint lies beyond this device"
        )

    def interest(self) -> Interest:
        """Who wants to know."""
        underway = any(reach.underway for reach in self.reaches)
        return Interest.KEEN if underway else self._interest()

    def refresh(self) -> None:
        """A request is about to be decided: notice what only shows by looking. Cheap."""
        if self._over_network and (self._has_slept() or self._is_stale()):
            self._look()

    def begun(self, reach: Reach) -> None:
        """A call to the endpoint starts."""
        if reach in self._probing and reach.fault is None:
            self._probing[reach].watch_silence()

    def answered(self, reach: Reach) -> None:
        """A call was answered."""
        if reach.answered():
            self._learned()

    def failed(self, reach: Reach, error: AttemptError) -> None:
        """A call failed."""
        probing = self._probing.get(reach)
        if probing is None or reach.fault is not None or error.kind is FailureKind.PREEMPTED:
            return
        if error.fault is PathFault.REFUSED or (error.fault is PathFault.INTERCEPTED and reach.over_network):
            reach.lost(error.fault)
            self._learned()
            probing.seek()
        elif error.kind in _MAY_BE_THE_WAY:
            probing.suspect(deep=True)

    def seek_lost(self) -> None:
        """Ask for what could not be reached, if that was not just done."""
        for reach, probing in self._probing.items():
            if reach.fault is not None or reach.unproven:
                probing.suspect()

    def keep_asking(self, *, everything: bool) -> None:
        """Have what was lost be asked for, at its own pace; with ``everything`` whatever lies beyond this device."""
        for reach, probing in self._probing.items():
            if reach.fault is not None or reach.unproven or (everything and reach.over_network):
                probing.keep_asking()

    def seek_any(self) -> None:
        """Ask whether anything beyond this device answers after all, if that was not just done."""
        for reach in self._over_network:
            self._probing[reach].suspect(deep=True)

    async def check(self) -> None:
        """Ask every endpoint now, and return when each has answered or has not."""
        await asyncio.gather(*(probing.check() for probing in self._probing.values()))

    def suspect_underway(self) -> None:
        """Ask for the endpoints that calls are waiting for."""
        for reach in self._over_network:
            if reach.underway:
                self._probing[reach].suspect()

    def network_changed(self) -> None:
        """The device is on another network, or has slept: what was known counts no more."""
        for reach in self._over_network:
            self._doubt(reach)
        self._look()
        self._learned()

    async def stop(self) -> None:
        """End all watching and asking."""
        self._stop_watching()
        if self._look_due is not None:
            self._look_due.cancel()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for probing in self._probing.values():
            await probing.stop()

    def _ask_the_others(self) -> None:
        """One is silent: is it that one, or the link?"""
        for reach in self._over_network:
            if reach.fault is None and reach.age_of_life() > RECENT:
                self._probing[reach].suspect()

    def _has_slept(self) -> bool:
        return self._network.suspended() - self._slept > SLEPT

    def _is_stale(self) -> bool:
        return self._network.polled and self._loop.time() - self._looked_at >= LOOK_EVERY

    def _changed(self) -> None:
        """The operating system has news: they come in bursts."""
        if self._look_due is None:
            self._look_due = self._loop.call_later(SETTLES, self._look)

    def _look(self) -> None:
        """Look at the interfaces and at the way to each endpoint; follow what has changed."""
        if self._look_due is not None:
            self._look_due.cancel()
            self._look_due = None
        self._looked_at = self._loop.time()
        changed = self._has_slept()
        if changed:
            self._slept = self._network.suspended()
            for reach in self._over_network:
                self._doubt(reach)
        before, self.attachment = self.attachment, self._network.attachment()
        moved = before != self.attachment
        changed |= moved
        for reach in self._over_network:
            changed |= self._follow(reach, self.attachment, moved or not self._network.polled)
        if self._network.polled and self.interest() is not Interest.NONE:
            self._look_due = self._loop.call_later(LOOK_EVERY, self._look)
        if changed:
            self._learned()

    def _follow(self, reach: Reach, now: Attachment, news: bool) -> bool:
        """Follow the way to an endpoint; returns whether something changed. ``news``: the system has some."""
        before = reach.way
        reach.way = None if reach.address is None else self._network.way(reach.address)
        # A name may mean another address on another network: only a literal address is lost with its route.
        literal = reach.endpoint is not None and reach.endpoint.literal
        if not now.addresses or (literal and reach.way is None):
            lost = reach.lost(PathFault.NO_ROUTE)
            if lost:
                self._fail_soon(reach, PathFault.NO_ROUTE)
            return lost
        # What a probe found of a name's addresses does not show here: only news are a reason to doubt it.
        if reach.fault is PathFault.NO_ROUTE and (literal or news):
            self._doubt(reach)
            if self.interest() is not Interest.NONE:
                self._probing[reach].seek(self._random.uniform(0.0, RETURN_JITTER))
            return True
        if before is not None and reach.way != before:
            self._doubt(reach)
            if before.source not in now.addresses:
                sentence = f"its connection to {reach.label} went by an address that this device has no more"
                reach.fail_underway(PathFault.BROKEN, sentence)
            return True
        return False

    def _doubt(self, reach: Reach) -> None:
        was_lost = reach.fault is not None or reach.unproven
        reach.doubt(was_lost=was_lost)
        if reach.underway:
            self._probing[reach].watch_silence()
        for backend in reach.backends:
            self._renew(backend)

    def _renew(self, backend: Backend) -> None:
        task = self._loop.create_task(backend.network_changed())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _fail_soon(self, reach: Reach, fault: PathFault) -> None:
        if reach.underway:
            self._loop.call_later(GRACE, self._fail_if_lost, reach, fault)

    def _fail_if_lost(self, reach: Reach, fault: PathFault) -> None:
        if reach.fault is fault:
            reach.fail_underway(fault, told(fault, reach.label))


def _by_endpoint(backends: Iterable[Backend], clock: Callable[[], float]) -> tuple[Reach, ...]:
    together: dict[object, list[Backend]] = {}
    for backend in backends:
        together.setdefault(backend.endpoint or backend.name, []).append(backend)
    return tuple(Reach(each, clock) for each in together.values())
