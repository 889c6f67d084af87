"""How the link is judged over mobile networks, in virtual time: false alarms, and outages that are seen.

    python benchmarks/connectivity.py [--traces DIR] [--every 5] [--seeds 5]

A trace holds seconds and Mbit/s a line, such as the Norwegian 3G series of Riiser et al. (2013); without ``--traces``
three are made up. Requests come every few seconds and are answered after a while, over a link made worse than its
trace: 0.15 to 0.3 s of round trip, and a buffer of 32 KiB on the way that somebody else keeps full; one packet in
fifty lost; the radio asleep after 5 s without traffic, and 0.3 to 1.2 s to wake it. Then the same with requests every
second, while nothing passes for 15 of every 60 s.

Printed for each trace: the share of the time in which the link worked and was told as offline (and how many alarms
that were), and how long it took to see the outages and their end.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import random
import statistics
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from edgewise.backends import CallContext
from edgewise.backends.endpoint import Endpoint
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent, Usage
from edgewise.core.content import GenerateInput
from edgewise.core.failure import AttemptError, FailureKind, PathFault
from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.router.link.network import Attachment, Opened, Unopened, Way
from edgewise.testing import ScriptedBackend, run_in_virtual_time

ROUND_TRIP = (0.15, 0.3)
BUFFER_BITS = 32 * 1024 * 8
LOST = 0.02
AWAKE = 5.0
WAKING = (0.3, 1.2)
REPEATED_AFTER = (1.0, 3.0)
"""When TCP repeats what is lost."""

TRY_EVERY = 0.3
OUTAGE, CYCLE = 15.0, 60.0

CONFIGURATION = """
version: 1
models: {tiny: {source: "file:tiny.gguf"}}
backends:
  cloud: {kind: grpc, target: "203.0.113.5:443", location: {process_in: [NL]}, quality: 0.9}
  phone: {kind: llama_cpp, model: tiny, location: device, quality: 0.3}
policy:
  data_classes: {public: {process_in: [any]}}
  defaults: {latency_budget: 30s, order: [quality]}
"""


@dataclass(frozen=True, slots=True)
class Trace:
    """A series of rates: ``rates[i]`` Mbit/s from ``times[i]`` seconds on."""

    name: str
    times: Sequence[float]
    rates: Sequence[float]

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.times[-1]

    def rate(self, at: float) -> float:
        """Bits a second at a time."""
        return self.rates[max(0, bisect.bisect_right(self.times, at) - 1)] * 1e6


@dataclass(slots=True)
class Seen:
    """What one run came to. Times are seconds."""

    worked: float = 0.0
    false_offline: float = 0.0
    alarms: int = 0
    seen_after: list[float] = field(default_factory=list)
    back_after: list[float] = field(default_factory=list)
    unseen: int = 0


class MobileLink:
    """A link by a trace: the delay of one exchange of small packets that begins now."""

    watch_name, polled = "a trace", False

    def __init__(self, trace: Trace, seed: int, *, outages: bool) -> None:
        self._trace = trace
        self._random = random.Random(f"{trace.name} {seed}")
        self._outages = outages
        self._used_at = -1e9

    def passes(self, at: float) -> bool:
        """Whether anything passes."""
        return not self._outages or at % CYCLE < CYCLE - OUTAGE

    async def exchange(self) -> None:
        """Send a small packet, and wait for the answer to it; for ever, where one of the two is lost."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        delay = self._random.uniform(*ROUND_TRIP) + BUFFER_BITS / self._trace.rate(at)
        if at - self._used_at > AWAKE:
            delay += self._random.uniform(*WAKING)
        self._used_at = at
        await asyncio.sleep(delay)
        if not (self.passes(at) and self.passes(loop.time())) or self._random.random() < 2 * LOST:
            await loop.create_future()

    async def open(self, endpoint: Endpoint, patience: float) -> Opened:
        """Connections beside each other, each of which repeats its first packet, as the real ones do."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tries: list[asyncio.Task[float]] = []
        try:
            while loop.time() < begun + patience - 0.001:
                tries.append(loop.create_task(self.transfer()))
                wait = min(TRY_EVERY, begun + patience - loop.time())
                done, _ = await asyncio.wait(tries, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    return Opened(endpoint.host, each.result())
            raise Unopened(PathFault.SILENT)
        finally:
            for each in tries:
                each.cancel()

    async def transfer(self) -> float:
        """The same, repeated where it is lost, as TCP does; after so many seconds."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        exchanges = []
        try:
            for until in (*REPEATED_AFTER, 1e6):
                exchanges.append(loop.create_task(self.exchange()))
                done, _ = await asyncio.wait(
                    exchanges, timeout=begun + until - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
            return loop.time() - begun
        finally:
            for each in exchanges:
                each.cancel()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """The interface never changes: that is what lies."""
        return lambda: None

    def attachment(self) -> Attachment:
        """One interface."""
        return Attachment(frozenset({"192.0.2.1"}))

    def way(self, address: str) -> Way | None:
        """By it."""
        return Way("wwan0", "192.0.2.1")

    def suspended(self) -> float:
        """Never."""
        return 0.0


class Cloud(ScriptedBackend):
    """A service beyond the link, which thinks for a while and then speaks."""

    def __init__(self, link: MobileLink, source: random.Random) -> None:
        super().__init__("cloud")
        self._link = link
        self._source = source

    @property
    def endpoint(self) -> Endpoint:
        """Beyond the link."""
        return Endpoint("203.0.113.5", 443)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Think for 0.3 to 4 s, then twenty tokens, five at a time; each has to come over the link, too."""
        await self._link.transfer()
        await asyncio.sleep(self._source.uniform(0.3, 4.0))
        for _ in range(4):
            await self._link.transfer()
            yield Delta("word " * 5, 5)
        yield Finish(FinishReason.STOP, Usage(1, 20))

    async def probe(self, seconds: float) -> None:
        """Three exchanges: TLS and a call."""
        try:
            async with asyncio.timeout(seconds):
                for _ in range(3):
                    await self._link.transfer()
        except TimeoutError:
            raise AttemptError(FailureKind.TIMED_OUT, "no answer") from None


def run(trace: Trace, *, every: float, outages: bool, seed: int = 1) -> Seen:
    """Judge the link over a trace."""
    return run_in_virtual_time(_run(trace, every, outages, seed), begins_at=0.0)


async def _run(trace: Trace, every: float, outages: bool, seed: int) -> Seen:
    loop = asyncio.get_running_loop()
    source = random.Random(seed)
    link = MobileLink(trace, seed, outages=outages)
    backends = {"cloud": Cloud(link, source), "phone": ScriptedBackend("phone")}
    configuration = loads(CONFIGURATION, ".")
    states: list[tuple[float, str]] = []
    async with AsyncRouter(
        configuration, backends=backends, network=link, random_source=source, sample=DeviceFacts
    ) as router:

        async def watch() -> None:
            async with aclosing(router.connectivity.changes()) as changes:
                async for status in changes:
                    states.append((loop.time(), str(status.state)))  # noqa: PERF401  # read as they come

        watching = asyncio.create_task(watch())
        asked = set()
        while loop.time() < trace.seconds:
            task = asyncio.create_task(router.generate("x", data_class="public"))
            asked.add(task)
            await asyncio.sleep(every * source.uniform(0.5, 1.5))
        await asyncio.gather(*asked, return_exceptions=True)
        watching.cancel()
    return _judge(link, trace, states, outages)


def _judge(link: MobileLink, trace: Trace, states: Sequence[tuple[float, str]], outages: bool) -> Seen:
    seen = Seen()
    spans = [
        (at, min(until, trace.seconds))
        for (at, state), (until, _) in zip(states, [*states[1:], (trace.seconds, "")], strict=True)
        if state == "offline" and at < trace.seconds
    ]
    step = 0.01
    ticks = [at * step for at in range(int(trace.seconds / step))]
    offline = [any(begin <= at < end for begin, end in spans) for at in ticks]
    seen.worked = sum(step for at in ticks if link.passes(at))
    # A second is what an outage may take to be over.
    seen.false_offline = sum(
        step for at, off in zip(ticks, offline, strict=True) if off and link.passes(at) and link.passes(at - 1.0)
    )
    seen.alarms = sum(link.passes(at) and link.passes(at - 1.0) for at, _ in spans)
    if outages:
        start = CYCLE - OUTAGE
        while start + OUTAGE + 5.0 < trace.seconds:
            during = [at for at, _ in spans if start <= at < start + OUTAGE]
            ends = [end for at, end in spans if start <= at < start + OUTAGE <= end]
            if during:
                seen.seen_after.append(during[0] - start)
                seen.back_after += [end - start - OUTAGE for end in ends]
            else:
                seen.unseen += 1
            start += CYCLE
    return seen


def read_trace(path: Path) -> Trace:
    """A trace of a file."""
    rows = [tuple(map(float, line.split())) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return Trace(path.name, [row[0] for row in rows], [row[1] for row in rows])


def made_up_traces(seconds: float = 240.0) -> list[Trace]:
    """Rates that wander as those of mobile networks do: a random walk of their logarithm, every second."""
    traces = []
    for name, mean in (("made up, slow", 0.6), ("made up, fair", 1.5), ("made up, good", 4.0)):
        source, wander, rates = random.Random(name), 0.0, []
        for _ in range(int(seconds) + 1):
            wander = 0.9 * wander + source.gauss(0.0, 0.3)
            rates.append(max(0.1, mean * 2.0**wander))
        traces.append(Trace(name, [float(at) for at in range(int(seconds) + 1)], rates))
    return traces


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="a folder of traces; without it, three made-up ones")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two requests, on average")
    parser.add_argument("--seeds", type=int, default=5, help="runs over each trace")
    options = parser.parse_args()
    traces = [read_trace(each) for each in sorted(options.traces.iterdir())] if options.traces else made_up_traces()
    print(f"{'trace':16} {'falsely offline':>16} {'alarms':>7}   outages: seen after (p50, max); back after; unseen")
    whole = Seen()
    for trace in traces:
        plain, broken = Seen(), Seen()
        for seed in range(options.seeds):
            _add(plain, run(trace, every=options.every, outages=False, seed=seed))
            _add(broken, run(trace, every=1.0, outages=True, seed=seed))
        _add(whole, plain)
        share = plain.false_offline / plain.worked
        print(f"{trace.name:16} {share:16.3%} {plain.alarms:7}   {_told(broken)}")
    hours = whole.worked / 3600.0
    print(
        f"in all: {whole.false_offline / whole.worked:.3%} of {hours:.1f} h, {whole.alarms / hours:.1f} alarms an hour"
    )


def _add(to: Seen, more: Seen) -> None:
    to.worked += more.worked
    to.false_offline += more.false_offline
    to.alarms += more.alarms
    to.seen_after += more.seen_after
    to.back_after += more.back_after
    to.unseen += more.unseen


def _told(seen: Seen) -> str:
    def pair(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.2f} s, {max(values):.2f} s" if values else "none"

    return f"{len(seen.seen_after)} seen, {pair(seen.seen_after)}; {pair(seen.back_after)}; {seen.unseen} unseen"


if __name__ == "__main__":
    main()
