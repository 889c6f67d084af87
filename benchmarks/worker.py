"""What a worker process costs by itself: the time until it is ready, and the processor's time to hand a token over.

Run: ``python benchmarks/worker.py``. The engine loads nothing and makes its tokens from nothing, so that all that is
measured is ours: both processes' processor time, divided by the tokens, beside the same generator run to its end here.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Generator

import psutil

from edgewise.backends.process.engine import Engine, Parcel, Progress, RunningCall
from edgewise.backends.process.frames import JsonObject
from edgewise.backends.process.worker_process import WorkerProcess

TOKENS = 50_000
STARTS = 9


class EmptyEngine(Engine):
    """Streams ``n`` tokens such as a language model's, made from nothing."""

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        return {}

    def run(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        for _ in range(call.fields["n"]):
            yield Parcel({"text": " token", "tokens": 1})


async def start_seconds() -> float:
    """How long a worker takes from its start until it is ready."""
    worker = WorkerProcess("empty", "worker:EmptyEngine", {})
    begun = time.perf_counter()
    await worker.start()
    seconds = time.perf_counter() - begun
    await worker.stop()
    return seconds


async def hand_over_seconds() -> float:
    """The processor time of both processes for one token on its way, the generator's own not counted."""
    worker = WorkerProcess("empty", "worker:EmptyEngine", {})
    await worker.start()
    other = psutil.Process(worker.pid)
    here, there = time.process_time(), sum(other.cpu_times()[:2])
    with await worker.stream(Parcel({"n": TOKENS})) as replies:
        async for _ in replies:
            pass
    used = time.process_time() - here + sum(other.cpu_times()[:2]) - there
    await worker.stop()
    begun = time.process_time()
    for _ in EmptyEngine().run(Parcel({"n": TOKENS}), RunningCall(0)):
        pass
    return (used - (time.process_time() - begun)) / TOKENS


async def main() -> None:
    starts = [await start_seconds() for _ in range(STARTS)]
    print(f"ready, beside its engine's own load: median {statistics.median(starts):.3f} s, slowest {max(starts):.3f} s")
    handed = [await hand_over_seconds() for _ in range(3)]
    print(f"handing one token over, both processes: {statistics.median(handed) * 1e6:.1f} µs of processor time")


if __name__ == "__main__":
    asyncio.run(main())
