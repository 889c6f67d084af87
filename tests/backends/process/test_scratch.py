"""What a worker writes to its temporary folder is gone with it, however it or its application ends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.scratch import ScratchFolder, remove_leftovers
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.failure import AttemptError

from .conftest import PROBE


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for temporary files that nobody else uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    return folder


async def until(there: Path, pattern: str) -> list[Path]:
    async with asyncio.timeout(20):
        while not (found := list(there.glob(pattern))):  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.005)
    return found


async def test_a_worker_killed_while_it_loads_leaves_nothing(temporary: Path, model: Path, tmp_path: Path) -> None:
    settings = {"links": str(model), "load": "slowly", "until": str(tmp_path / "never")}
    worker = WorkerProcess("probe", PROBE, settings)
    others = psutil.Process().children()
    starting = asyncio.create_task(worker.start())
    (first,) = await until(temporary, "*/*/link")
    (loading,) = (child for child in psutil.Process().children() if child not in others)
    loading.kill()
    async with asyncio.timeout(20):
        while first.is_symlink():  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.005)
    await until(temporary, "*/*/link")  # the worker that came back
    await worker.stop()
    with pytest.raises(AttemptError):
        await starting
    assert list(temporary.iterdir()) == []
    assert (model / "weights").read_bytes() == b"1"


async def test_a_worker_that_crashes_or_stops_leaves_nothing(temporary: Path, model: Path) -> None:
    worker = WorkerProcess("probe", PROBE, {"links": str(model)})
    await worker.start()
    (before,) = temporary.glob("*/*/link")
    with pytest.raises(AttemptError):
        await worker.unary(Parcel({"do": "die", "signal": signal.SIGSEGV}))
    assert not before.is_symlink()
    assert Path((await worker.unary(Parcel({"do": "scratch"}))).fields["folder"]).parent == temporary
    await worker.stop()
    assert list(temporary.iterdir()) == []


async def test_what_a_killed_application_left_is_removed_by_the_next_worker(temporary: Path) -> None:
    program = Path(__file__).parent / "_application.py"
    with subprocess.Popen(  # noqa: ASYNC220  # nothing else is to run
        [sys.executable, program, "hold"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as application:
        assert application.stdout is not None
        assert application.stdout.readline()
        (held,) = temporary.iterdir()
        remove_leftovers()
        assert held.is_dir(), "its application lives"
        application.kill()
    assert held.is_dir()
    worker = WorkerProcess("probe", PROBE, {})
    await worker.start()
    assert not held.exists()
    await worker.stop()
    assert list(temporary.iterdir()) == []


def test_only_folders_of_workers_are_leftovers(temporary: Path, tmp_path: Path) -> None:
    (temporary / "edgewise-demo-1").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (temporary / "edgewise-worker-link").symlink_to(elsewhere)
    (temporary / "edgewise-worker-file").write_text("")
    remove_leftovers()
    assert elsewhere.is_dir()
    assert len(list(temporary.iterdir())) == 3


def test_without_a_place_for_temporary_files_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert ScratchFolder.make() is None


async def test_without_a_place_for_temporary_files_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a root that is read-only: nothing that the library tries can be written.
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()
    worker = WorkerProcess("probe", PROBE, {})
    async with asyncio.timeout(20):
        await worker.start()
    await worker.stop()


def test_where_files_cannot_be_locked_there_is_none_and_nothing_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", out_of_locks)
    before = psutil.Process().num_fds()
    assert ScratchFolder.make() is None
    assert psutil.Process().num_fds() == before
    assert list(temporary.iterdir()) == []


def test_where_nothing_more_can_be_opened_there_is_none_and_nothing_is_left(temporary: Path) -> None:
    tempfile.gettempdir()  # found by opening a file in it, once
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert ScratchFolder.make() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(temporary.iterdir()) == []
