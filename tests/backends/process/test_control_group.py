"""What a worker's own control group says of it, and not what befell its neighbours."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from edgewise.backends.process import control_group
from edgewise.backends.process.control_group import Endings, memory_left, memory_limit
from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.memory import all_memory, free_memory
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.failure import AttemptError, FailureKind

MEBI = 1 << 20
PID = 4711


class Machine:
    """The files of a system with control groups of either version, and a process in the group ``/outer/inner``."""

    def __init__(self, folder: Path, version: int) -> None:
        self.groups, self.processes = folder / "groups", folder / "proc"
        self._first = version == 1
        controllers = "4:memory:" if self._first else "0::"
        for process in (str(PID), "self"):
            (self.processes / process).mkdir(parents=True)
            (self.processes / process / "cgroup").write_text(f"7:cpu:/elsewhere\n{controllers}/outer/inner\n")
        self.ended("outer/inner", 0)

    def ended(self, group: str, count: int) -> None:
        name = "memory.oom_control" if self._first else "memory.events"
        (self._folder(group) / name).write_text(f"oom_kill_disable 0\noom_kill {count}\n")

    def holds(self, group: str, *, limit: int, used: int, cached: int) -> None:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if self._first else ("memory.max", "memory.current")
        for name, number in zip(names, (limit, used), strict=True):
            (self._folder(group) / name).write_text(f"{number}\n")
        key = "total_inactive_file" if self._first else "inactive_file"
        (self._folder(group) / "memory.stat").write_text(f"anon 1\n{key} {cached}\n")

    def forgets_groups(self) -> None:
        for process in self.processes.iterdir():
            (process / "cgroup").write_text("")

    def _folder(self, group: str) -> Path:
        folder = self.groups / ("memory" if self._first else "") / group
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@pytest.fixture(params=[1, 2])
def machine(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, request.param)
    monkeypatch.setattr(control_group, "_GROUPS", made.groups)
    monkeypatch.setattr(control_group, "_PROCESSES", made.processes)
    return made


def looked(times: int = 2) -> Endings:
    endings = Endings(PID)
    for _ in range(times):
        endings.look()
    return endings


def test_an_ending_in_its_own_group_is_the_processes(machine: Machine) -> None:
    endings = looked()
    machine.ended("outer/inner", 1)
    assert endings.of_memory() is True


def test_an_ending_noticed_by_a_look_before_the_death_is_still_the_processes(machine: Machine) -> None:
    endings = looked()
    machine.ended("outer/inner", 1)
    endings.look()
    assert endings.of_memory() is True


def test_endings_of_neighbours_and_of_long_ago_are_not(machine: Machine) -> None:
    endings = looked()
    machine.ended("outer", 7)
    machine.ended("outer/neighbour", 7)
    assert endings.of_memory() is False
    machine.ended("outer/inner", 1)
    endings.look()
    endings.look()
    assert endings.of_memory() is False


def test_without_a_group_nothing_is_known(machine: Machine) -> None:
    machine.forgets_groups()
    assert looked().of_memory() is None
    assert memory_limit() is None
    assert memory_left() is None


def test_the_narrowest_limit_of_all_groups_counts(machine: Machine) -> None:
    machine.holds("outer/inner", limit=900 * MEBI, used=100 * MEBI, cached=0)
    machine.holds("outer", limit=400 * MEBI, used=399 * MEBI, cached=0)
    assert memory_limit() == all_memory() == 400 * MEBI
    assert memory_left() == free_memory() == MEBI


def test_files_that_were_read_are_given_back(machine: Machine) -> None:
    """Else a model would not fit because it was just read to be proven."""
    machine.holds("outer/inner", limit=400 * MEBI, used=300 * MEBI, cached=200 * MEBI)
    assert memory_left() == 300 * MEBI


@pytest.fixture
def small_groups() -> Iterator[tuple[Path, Path]]:
    """Two groups, beside each other, of which each may hold 100 MiB."""
    found = control_group._group("self")
    if found is None:
        pytest.skip("this system has no control groups for memory")
    folder, version = found
    made = [folder / f"edgewise-{uuid4().hex}" for _ in range(2)]
    try:
        for group in made:
            group.mkdir()
            (group / version.limit).write_text(str(100 * MEBI))
    except OSError as error:
        for group in made:
            if group.is_dir():
                group.rmdir()
        pytest.skip(f"nobody lets this test make a control group for memory ({error.strerror})")
    yield made[0], made[1]
    for group in made:
        group.rmdir()


async def test_a_worker_whose_group_has_no_more_memory_is_told_apart_from_one_killed_beside_it(
    small_groups: tuple[Path, Path],
) -> None:
    workers = [WorkerProcess(name, "_probe_engine:ProbeEngine", {}, hang_after=30.0) for name in ("full", "killed")]
    for worker, group in zip(workers, small_groups, strict=True):
        await worker.start()
        (group / "cgroup.procs").write_text(str(worker.pid))
        assert worker._child is not None
        worker._child._endings.look()  # as the next ping would
    full, killed = workers
    try:
        with pytest.raises(AttemptError) as failure:
            await full.unary(Parcel({"do": "take_memory", "n": 300 * MEBI}))
        assert failure.value.kind is FailureKind.CRASHED
        assert "for want of memory" in failure.value.sentence
        assert "likely" not in failure.value.sentence
        assert killed.pid is not None
        with pytest.raises(AttemptError) as failure:
            await killed.unary(Parcel({"do": "die", "signal": signal.SIGKILL}))
        assert "SIGKILL" in failure.value.sentence
        assert "memory" not in failure.value.sentence
    finally:
        for worker in workers:
            await worker.stop()


async def test_where_nobody_tells_a_kill_is_likely_one_for_memory(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(control_group, "_PROCESSES", tmp_path)
    await worker.stop()
    await worker.start()
    with pytest.raises(AttemptError) as failure:
        await worker.unary(Parcel({"do": "die", "signal": signal.SIGKILL}))
    assert "likely for want of memory" in failure.value.sentence
