"""Several processes, or routers, with one state file: what each has spent counts for all, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edgewise.router.spending import Spending
from edgewise.router.state_file import SAVE_EVERY, StateFile
from edgewise.testing import run_in_virtual_time

from .test_spending import Calendar, opened

DAY = datetime(2026, 3, 30, 9, 30)


class Process:
    """What one process holds of a file."""

    def __init__(self, path: Path) -> None:
        self.spending = Spending(lambda: DAY)
        self.file = StateFile(path, lambda: DAY)
        self.file.start({}, {"spending": self.spending})

    @property
    def cents(self) -> int:
        """What it believes was spent today."""
        return self.spending.facts(DAY.date()).today_cents


def in_file(path: Path) -> float:
    """The dollars of the day."""
    return float(json.loads(path.read_text())["parts"]["spending"][DAY.date().isoformat()])


def test_a_limit_holds_for_two_routers_together_after_half_a_minute(tmp_path: Path) -> None:
    calendar = Calendar(DAY)

    async def main() -> None:
        async with opened(tmp_path, calendar) as one, opened(tmp_path, calendar) as two:
            for router in (one, two, one):
                assert (await router.generate("a text")).backend == "cloud"
            await asyncio.sleep(SAVE_EVERY + 1.0)
            await asyncio.sleep(SAVE_EVERY)
            for router in (one, two):
                assert (await router.generate("a text")).backend == "phone", "twelve cents of ten"
        calendar.now += timedelta(days=1)
        async with opened(tmp_path, calendar) as later:
            assert (await later.generate("a text")).backend == "cloud"
            assert [(await later.generate("a text")).backend for _ in range(3)] == ["cloud", "cloud", "phone"]

    run_in_virtual_time(main())


def test_what_others_have_added_is_seen_by_one_that_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"

    async def main() -> None:
        one, idle = Process(path), Process(path)
        for _ in range(5):
            one.spending.add(0.01)
            await asyncio.sleep(SAVE_EVERY)
        await asyncio.sleep(SAVE_EVERY)
        assert (one.cents, idle.cents) == (5, 5)
        written = path.stat().st_mtime_ns
        await asyncio.sleep(10 * SAVE_EVERY)
        assert path.stat().st_mtime_ns == written, "nobody writes where nothing was learned"
        await one.file.close()
        await idle.file.close()
        assert in_file(path) == pytest.approx(0.05)

    run_in_virtual_time(main())


def test_what_is_spent_while_the_file_is_read_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"

    async def main() -> None:
        one, idle = Process(path), Process(path)
        one.spending.add(0.01)
        await asyncio.sleep(SAVE_EVERY / 2)
        read = idle.file._read_under_lock

        def read_while_an_answer_ends() -> object:
            monkeypatch.undo()
            idle.spending.add(0.05)
            return read()

        monkeypatch.setattr(idle.file, "_read_under_lock", read_while_an_answer_ends)
        await asyncio.sleep(SAVE_EVERY)
        await one.file.close()
        await idle.file.close()
        assert in_file(path) == pytest.approx(0.06)

    run_in_virtual_time(main())


def test_a_disk_that_fails_for_a_while_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    whole: Callable[[StateFile, bytes], bool] = StateFile._write
    failures = iter([True, False, True, True])

    def write(file: StateFile, data: bytes) -> bool:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        return whole(file, data)

    async def main() -> None:
        one, two = Process(path), Process(path)
        for _ in range(8):
            one.spending.add(0.01)
            two.spending.add(0.02)
            await asyncio.sleep(SAVE_EVERY / 2)
        await asyncio.sleep(2 * SAVE_EVERY)
        assert (one.cents, two.cents) == (24, 24)
        await one.file.close()
        await two.file.close()
        assert in_file(path) == pytest.approx(0.24)

    monkeypatch.setattr(StateFile, "_write", write)
    run_in_virtual_time(main())


@pytest.mark.parametrize(
    "damaged", ["no JSON", '{"edgewise_state": 1, "saved_at": 1, "clock": 1, "parts": {"spending": []}}']
)
def test_a_damaged_file_is_set_aside_once_and_nothing_that_was_spent_since_is(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(damaged)

    async def main() -> None:
        processes = [Process(path) for _ in range(3)]
        for process in processes:
            process.spending.add(0.01)
            await asyncio.sleep(SAVE_EVERY)
        for process in processes:
            await process.file.close()

    run_in_virtual_time(main())
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_text() == damaged
    assert in_file(path) == pytest.approx(0.03)


def test_what_was_spent_outlives_a_file_that_is_damaged_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "state.json"

    async def main() -> None:
        process = Process(path)
        process.spending.add(0.03)
        await asyncio.sleep(SAVE_EVERY)
        path.write_text("a letter to my aunt")
        await asyncio.sleep(2 * SAVE_EVERY)
        assert in_file(path) == pytest.approx(0.03)
        await process.file.close()

    run_in_virtual_time(main())
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


ROUNDS = 10


def spend_again_and_again(path: Path) -> None:
    """A cent in each of several short lives."""

    async def live() -> None:
        process = Process(path)
        process.spending.add(0.01)
        await process.file.close()

    for _ in range(ROUNDS):
        asyncio.run(live())


def test_real_processes_at_once_lose_not_a_cent(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=spend_again_and_again, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert in_file(path) == pytest.approx(0.01 * ROUNDS * len(processes))
