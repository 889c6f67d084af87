"""A disk that fails at each call which changes a file: kills, torn writes, lost power, no room. Nothing is lost.

``OUTBOX_WRITES`` says how many of the calls are tried, chosen by chance, for each way to fail; ``all`` is the campaign
of ``make crash-outbox``.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgewise.testing import run_in_virtual_time

from .campaign_progress import Progress
from .disk_worker import MORNING, WAYS, evening
from .test_crashes import judge, lines

ROOT = Path(__file__).parents[2]
WRITES = os.environ.get("OUTBOX_WRITES", "6")
KILLED = -9


class Disk:
    """Runs days on a failing disk, one folder each."""

    def __init__(self, worker: subprocess.Popen[str], folder: Path) -> None:
        self._worker = worker
        self._folder = folder

    def run(self, at: int, way: str) -> tuple[Path, int, int]:
        """The day's folder, how its process ended, and how many calls changed something (0 where it was killed)."""
        home = self._folder / f"{way}-{at}"
        (home / "disk").mkdir(parents=True)
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(f"{home / 'disk'} {at} {way}\n")
        self._worker.stdin.flush()
        status, counted = self._worker.stdout.readline().split()
        return home, int(status), 0 if counted == "-" else int(counted)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk, compiled."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here (cc)")
    built = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"], check=True)
    return built


@contextmanager
def opened(library: Path, folder: Path) -> Iterator[Disk]:
    command = [sys.executable, "-m", "tests.outbox.disk_worker"]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        yield Disk(worker, folder)
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(60) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_fails_at_any_write_loses_nothing(library: Path, tmp_path: Path, way: str) -> None:
    with opened(library, tmp_path) as disk:
        home, status, calls = disk.run(0, way)
        assert status == 0
        check(home, f"{way}, no failure", everything=True)
        assert calls > 100, "the disk saw the outbox at work"
        chosen = range(1, calls + 1)
        tried = chosen if WRITES == "all" else sorted(random.Random(1).sample(chosen, int(WRITES)))
        progress = Progress(len(tried), f"calls of {calls}")
        for number, at in enumerate(tried, 1):
            home, status, _ = disk.run(at, way)
            assert status == (0 if way == "full" else KILLED)
            check(home, f"{way} at call {at} of {calls}", everything=False)
            shutil.rmtree(home)
            if number % 25 == 0 or number == len(tried):
                progress.tell(number, f"{way}, nothing lost")


def check(home: Path, note: str, *, everything: bool) -> None:
    """Hold the outbox to what the application was told, and have it finish its work on a disk that does not fail."""
    outbox, journal = home / "disk" / "outbox.db", home / "journal"
    journal.touch()
    judge(outbox, journal, note, MORNING.timestamp())
    receipts = [receipt for _, receipt, _ in lines(journal, "receipt")]
    cancelled = {receipt for _, receipt in lines(journal, "cancelled")}
    ends = run_in_virtual_time(evening(outbox, receipts))
    for receipt in receipts:
        # The first one is cancelled; the process can die between doing that and being told that it is done.
        may_be = {"cancelled"} if receipt in cancelled else {"answered", "cancelled"}
        assert ends[receipt] in may_be if receipt == receipts[0] else ends[receipt] == "answered", note
    judge(outbox, journal, f"{note}, in the evening", MORNING.timestamp())
    if everything:
        assert (len(receipts), len(cancelled), len(lines(journal, "result"))) == (4, 1, 7), note
