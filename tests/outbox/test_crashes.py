"""kill -9 at random instants: nothing with a receipt is lost, no receipt has two answers, the file opens each time.

``OUTBOX_KILLS`` says how often; ``make crash-outbox N=2000`` is the long campaign.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.router.outbox import Ending, State, Store
from edgewise.router.outbox.encoding import decode_answer, decode_request

from .campaign_progress import Progress

WORKER = Path(__file__).parent / "crash_worker.py"
KILLS = int(os.environ.get("OUTBOX_KILLS", "16"))
SEED = int(os.environ.get("OUTBOX_SEED", "1"))
PATIENCE = 60.0
ONE_OUTBOX = 25
"""So many kills hit the same file, one after the other."""


class Starter:
    """Starts workers, and kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run_and_kill(self, outbox: Path, journal: Path, seed: int, after: float) -> None:
        """Start a worker, wait until it is at work, and kill it ``after`` seconds more."""
        assert self._process.stdin is not None
        opened = len(lines(journal, "open"))
        self._process.stdin.write(f"{outbox} {journal} {seed}\n")
        self._process.stdin.flush()
        worker = int(self._said())
        deadline = time.monotonic() + PATIENCE
        try:
            while len(lines(journal, "open")) == opened:
                assert time.monotonic() < deadline, f"seed {seed}: the worker did not begin: {journal.read_text()}"
                time.sleep(0.005)
            time.sleep(after)  # the instant of the crash is what is random here
        finally:
            os.kill(worker, signal.SIGKILL)
        assert self._said() == str(-signal.SIGKILL), f"seed {seed}: the worker ended: {journal.read_text()[-500:]}"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def starter() -> Iterator[Starter]:
    """A process that has imported what workers need, so that each begins at once."""
    command = [sys.executable, str(WORKER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Starter(process)


def lines(journal: Path, kind: str) -> list[list[str]]:
    """The journal's lines of a kind. A line torn by the kill cannot be: each is one write."""
    text = journal.read_text() if journal.exists() else ""
    return [words for words in map(str.split, text.splitlines()) if words[0] == kind]


def judge(outbox: Path, journal: Path, note: str, now: float | None = None) -> int:
    """Hold the outbox to what the application was told; returns how many receipts there are."""
    if not outbox.exists():
        assert not lines(journal, "receipt"), f"{note}: the outbox is gone"
        return 0  # killed before there was any
    store = Store(outbox)
    entries = {str(entry.receipt): entry for entry in store.all(time.time() if now is None else now)}
    with store.database.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", note
    store.close()
    assert not list(outbox.parent.glob("*.damaged-*")), note
    prompts: dict[str, str] = {}
    for _, receipt, prompt in lines(journal, "receipt"):
        prompts[receipt] = prompt
        assert receipt in entries, f"{note}: a receipt was lost"
    for receipt, entry in entries.items():
        if entry.state is State.ANSWERED:
            assert entry.answer is not None, note
            assert entry.content is None, note
            if receipt in prompts:
                assert decode_answer(entry.answer).text.split()[0] == prompts[receipt], note
        elif entry.state is State.QUEUED:
            assert entry.content is not None, note
            messages, _ = decode_request(entry.labels, entry.content)
            assert prompts.get(receipt, messages[0].text) == messages[0].text, note
        else:
            assert entry.ending is Ending.CANCELLED, note
    told: dict[str, str] = {}
    for _, receipt, *text in lines(journal, "result"):
        assert told.setdefault(receipt, " ".join(text)) == " ".join(text), f"{note}: two answers for one receipt"
        assert entries[receipt].state is not State.QUEUED, f"{note}: an answer was there and is gone"
    for _, receipt in lines(journal, "cancelled"):
        assert entries[receipt].ending is Ending.CANCELLED, f"{note}: cancelled, and then answered"
    return len(prompts)


def test_a_kill_at_any_instant_loses_nothing(starter: Starter, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    receipts = 0
    progress = Progress(KILLS, "kills")
    for first in range(0, KILLS, ONE_OUTBOX):
        folder = tmp_path / str(first)
        folder.mkdir()
        outbox, journal = folder / "outbox.db", folder / "journal"
        for number in range(first, min(KILLS, first + ONE_OUTBOX)):
            seed = dice.getrandbits(32)
            starter.run_and_kill(outbox, journal, seed, dice.uniform(0.0, 0.4))
            judge(outbox, journal, f"kill {number} of seed {SEED}")
        receipts += judge(outbox, journal, f"seed {SEED}")
        shutil.rmtree(folder)
        progress.tell(number + 1, f"{receipts} receipts, none lost")
    assert receipts > KILLS
