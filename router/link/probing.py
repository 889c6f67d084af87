"""When one endpoint is asked whether it is there, and what follows from what it says."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from enum import IntEnum

from ...backends import Backend
from ...core.failure import AttemptError, FailureKind, PathFault
from .network import Network, Opened, Unopened
from .reach import Reach, told

log = logging.getLogger("edgewise")

PATIENCE = 3.0
"""Seconds for which one probe goes on trying to connect; its endpoint counts as silent before that."""

ASK_SECONDS = 3.0
"""Seconds within which the service itself must answer a probe."""

KEEN_PAUSE = (0.15, 0.35)
"""Seconds between two probes while requests are waiting for the answer."""

MILD_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between two probes where somebody merely watches: from the first, doubling, up to the second; ± 20 %."""

LONGEST_SILENCE = 5.0

_DUE = 0.001
"""Seconds that round to now: sums of times are not exact, and a timer of nothing would fire for ever."""

LATE = 2.0
"""Seconds after which an answer tells of an outage's end, and not of the round trip: packets were repeated."""

SLOW_TO_FAIL = 0.5
"""Seconds after which a failure to begin talking is silence, and not a connection that was closed."""


class Interest(IntEnum):
    """Who wants to know."""

    NONE = 0
    MILD = 1
    """Somebody watches the link."""
    KEEN = 2
    """Requests came of late, or are under way."""


class Probing:
    """Asks one endpoint, bounded and only while somebody wants to know.

    Calls under way that are silent cause a probe; so does a call that failed on the way. While the endpoint cannot be
    reached it is asked again as often as the interest in it is worth. ``silent`` hears when calls under way are silent,
    ``learned`` when ``reach`` has changed.
    """

    def __init__(
        self,
        reach: Reach,
        network: Network,
        interest: Callable[[], Interest],
        silent: Callable[[], None],
        learned: Callable[[], None],
        random_source: random.Random,
    ) -> None:
        self._reach = reach
        self._network = network
        self._interest = interest
        self._silent = silent
        self._learned = learned
        self._random = random_source
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._nudged = asyncio.Event()
        self._deep = False
        self._in_order = 0
        self._not_before = 0.0
        self._heard_before = reach.heard_at

    def watch_silence(self) -> None:
        """A call is under way: look whether it stays without any sign of life."""
        due = self._loop.time() + self._reach.round_trip.silence()
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()  # set by a longer silence before
        self._timer = self._loop.call_at(due, self._look)

    def seek(self, delay: float = 0.0) -> None:
        """Ask until it answers, or nobody wants to know any more; at once, or after so many seconds."""
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._seek(delay))
        elif delay > 0.0:
            self._loop.call_later(delay, self._nudged.set)
        else:
            self._nudged.set()

    def suspect(self, *, deep: bool = False) -> None:
        """Ask, if that was not just done. ``deep``: the service itself, as its machine's answer says too little."""
        self._deep |= deep
        if self._loop.time() >= self._not_before:
            self.seek()

    def keep_asking(self) -> None:
        """Ask, if nobody does and that was not just done; whoever does keeps its pace."""
        if self._task is None or self._task.done():
            self.suspect(deep=True)

    async def check(self) -> None:
        """Ask the service once, now."""
        self._deep = True
        if not await self._ask():
            self.seek()

    async def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        self._timer = None
        reach = self._reach
        if not reach.underway:
            return
        if reach.heard_at != self._heard_before:
            self._heard_before, self._in_order = reach.heard_at, 0
        patience = min(reach.round_trip.silence() * 2.0**self._in_order, LONGEST_SILENCE)
        left = patience - reach.silent_for()
        if left <= _DUE:
            # A sign of life from its machine is enough at first. If the silence lasts, the service itself is asked.
            self._deep |= self._in_order > 0
            self.seek()
            self._silent()
            left = patience
        self._timer = self._loop.call_later(left, self._look)

    async def _seek(self, delay: float) -> None:
        asked = 0
        await self._rest(delay)
        while not await self._ask():
            self._not_before = self._loop.time() + KEEN_PAUSE[0]
            pause = self._pause(asked)
            if pause is None:
                return
            await self._rest(pause)
            asked += 1
        # What was found in order is not asked again at every failure.
        self._not_before = self._loop.time() + min(2.0**self._in_order, LONGEST_PAUSE)
        self._in_order = min(self._in_order + 1, 8)

    async def _rest(self, seconds: float) -> None:
        self._nudged.clear()
        if seconds > 0.0:
            timer = self._loop.call_later(seconds, self._nudged.set)
            try:
                await self._nudged.wait()
            finally:
                timer.cancel()

    def _pause(self, asked: int) -> float | None:
        interest = self._interest()
        if interest is Interest.NONE:
            return None
        if interest is Interest.KEEN:
            return self._random.uniform(*KEEN_PAUSE)
        return min(MILD_PAUSE * 2.0 ** min(asked, 8), LONGEST_PAUSE) * self._random.uniform(0.8, 1.2)

    async def _ask(self) -> bool:
        """Ask once. Returns whether nothing is left to ask."""
        reach = self._reach
        deep, self._deep = self._deep or reach.fault is not None or reach.unproven or not reach.over_network, False
        if reach.over_network and not await self._opens():
            return False
        if deep or reach.fault is not None:
            return await self._answers(reach.backends[0])
        reach.alive()
        self._learned()
        return True

    async def _opens(self) -> bool:
        reach = self._reach
        assert reach.endpoint is not None
        if (reach.way is None and reach.endpoint.literal) or not self._network.attachment().addresses:
            return self._found(PathFault.NO_ROUTE)  # nor is its name looked up
        opening = self._loop.create_task(self._network.open(reach.endpoint, PATIENCE))
        try:
            asked_at = self._loop.time()
            await self._opened_or_silent(opening, asked_at)
            opened = await opening
        except Unopened as error:
            return self._found(error.fault)
        finally:
            opening.cancel()
        reach.address = opened.address
        reach.way = self._network.way(opened.address)
        if self._loop.time() - asked_at <= LATE:
            reach.round_trip.observe(opened.seconds)
        return True

    async def _opened_or_silent(self, opening: asyncio.Task[Opened], asked_at: float) -> None:
        """Wait for a connection; after a window in which nothing else came from there either, it is silent."""
        reach = self._reach
        while not opening.done() and reach.fault is not PathFault.SILENT:
            left = max(asked_at, reach.heard_at) + reach.round_trip.window() - self._loop.time()
            if left <= _DUE:
                self._found(PathFault.SILENT)
                return
            await asyncio.wait([opening], timeout=left)

    async def _answers(self, backend: Backend) -> bool:
        reach = self._reach
        asked_at = self._loop.time()
        try:
            await backend.probe(ASK_SECONDS)
        except AttemptError as error:
            fault = error.fault
            if fault is None or fault is PathFault.BROKEN:  # how long it took says more
                fault = _fault(error.kind, self._loop.time() - asked_at)
            if reach.over_network or fault is not PathFault.INTERCEPTED:
                return self._found(fault)
            # On this machine there is no portal: something answers there, and what it is, is the breaker's business.
        except Exception as error:  # noqa: BLE001  # a backend from elsewhere
            log.warning("backend %r cannot be probed: its probe raised %s", backend.name, type(error).__name__)
        reach.answered()
        self._learned()
        return True

    def _found(self, fault: PathFault) -> bool:
        self._in_order = 0
        news = self._reach.lost(fault)
        self._learned()
        if news and fault is PathFault.SILENT:
            self._reach.fail_underway(fault, told(fault, self._reach.label))
        return False


def _fault(kind: FailureKind, took: float) -> PathFault:
    """What it means that a service failed to answer, on a way that works."""
    if kind is FailureKind.PROTOCOL:
        return PathFault.INTERCEPTED
    return PathFault.HUNG if kind is FailureKind.TIMED_OUT or took >= SLOW_TO_FAIL else PathFault.BROKEN
