"""Simulates many worlds: ``python -m tests.simulation.campaign --seeds 500 --start 0``.

Prints every broken promise with the command that replays its seed. Ends with status 1 where there was one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .outbox import with_outbox
from .simulation import REQUESTS, Report, simulate

_LONGEST = 60
"""Seconds of real time that one world may take; the usual is a tenth of a second."""


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description="Simulate worlds and hold the router to its promises.")
    parser.add_argument("--seeds", type=int, default=500, help=f"how many worlds, {REQUESTS} requests each")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes")
    asked = parser.parse_args()
    began = time.perf_counter()
    reports = _run(range(asked.start, asked.start + asked.seeds), asked.jobs)
    took = time.perf_counter() - began
    failing = [report for report in reports if report.violations]
    for report in failing:
        print(f"\nseed {report.seed}: {len(report.violations)} broken")
        print("\n".join(f"  {each}" for each in report.violations[:10]))
        print(f"  replay: python -m tests.simulation.campaign --seeds 1 --start {report.seed} --jobs 1")
    requests = sum(report.requests for report in reports)
    ends = sum((Counter(report.ends) for report in reports), Counter[str]())
    attempts = sum(report.attempts for report in reports)
    print(f"\n{requests} requests in {took:.1f} s: {requests / took:.0f} a second, {attempts} attempts")
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()))
    print(f"{len(failing)} of {len(reports)} seeds broke a promise")
    return 1 if failing else 0


def _run(seeds: range, jobs: int) -> list[Report]:
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        return list(progress.track(_reports(seeds, jobs), total=len(seeds)))


def _reports(seeds: range, jobs: int) -> Iterator[Report]:
    if jobs < 2 or len(seeds) < 2:
        yield from map(_simulate, seeds)
        return
    # Fresh processes: a forked one would share the parent's threads and locks.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_simulate, seeds, chunksize=4)


def _simulate(seed: int) -> Report:
    """The seed's report, also where its world breaks down or never ends."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_LONGEST)
    try:
        return with_outbox(simulate(seed))
    except TimeoutError:
        return Report(seed, 0, 0, {}, "", (f"this world had not ended after {_LONGEST} s",))
    except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to this seed and is told with it
        return Report(seed, 0, 0, {}, "", (f"this world broke down: {error!r}",))
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main())
