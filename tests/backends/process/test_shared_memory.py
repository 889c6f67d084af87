"""What is too large for the socket goes through memory that both sides see, and is left nowhere."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from edgewise.backends.process import child
from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.frames import MAX_FRAME_BYTES
from edgewise.backends.process.shared import LEAST, SharedArea, new_area
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.failure import AttemptError, FailureKind

MIB = 1 << 20

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no anonymous files in memory")


@pytest.fixture
def descriptor() -> int:
    made = new_area()
    assert made is not None
    return made


def allocated(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks * 512


def test_what_one_side_puts_the_other_sees_until_it_is_freed(descriptor: int) -> None:
    mine, theirs = SharedArea(descriptor), SharedArea(descriptor)
    first, second = mine.put(b"a" * 5000), mine.put(b"b" * 100)
    assert first is not None
    assert second is not None
    assert theirs.view(first, 5000) == b"a" * 5000
    assert theirs.view(second, 100) == b"b" * 100
    mine.free(first)
    assert mine.put(b"c" * 5001) == first
    assert theirs.view(second, 100) == b"b" * 100
    with pytest.raises(KeyError):
        mine.free(second + 4096)


def test_where_there_is_no_room_nothing_is_put(descriptor: int) -> None:
    area = SharedArea(descriptor)
    block = bytes(100 * MIB)
    starts = [area.put(block) for _ in range(3)]
    assert starts == [0, 100 * MIB, None]
    area.free(0)
    assert area.put(block) == 0


def test_it_holds_no_more_memory_than_it_needs(descriptor: int) -> None:
    area = SharedArea(descriptor)
    assert allocated(descriptor) == 0
    start = area.put(bytes(100 * MIB))
    assert start is not None
    assert allocated(descriptor) == 100 * MIB
    area.free(start)
    assert allocated(descriptor) == 32 * MIB


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (0, MAX_FRAME_BYTES + 1), (MAX_FRAME_BYTES, 1)])
def test_nobody_looks_beyond_it(descriptor: int, start: int, length: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        SharedArea(descriptor).view(start, length)


def test_nobody_can_shorten_it_under_the_others_eyes(descriptor: int) -> None:
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(descriptor, 0)


async def _echo(worker: WorkerProcess, payload: bytes) -> None:
    async with asyncio.timeout(20):
        answer = await worker.unary(Parcel({"do": "echo"}, payload))
    assert isinstance(answer.payload, bytes)
    assert answer.payload == payload


@pytest.mark.parametrize("length", [LEAST - 1, LEAST, 3 * MIB + 1])
async def test_a_payload_comes_back_as_it_was(worker: WorkerProcess, length: int) -> None:
    for _ in range(3):
        await _echo(worker, os.urandom(length))
    answer = await worker.unary(Parcel({"do": "look"}, bytes(length)))
    assert answer.fields["shared"] == (length >= LEAST)


async def test_without_shared_memory_the_socket_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "new_area", lambda: None)
    worker = WorkerProcess("probe", "_probe_engine:ProbeEngine", {}, hang_after=1.0)
    await worker.start()
    await _echo(worker, os.urandom(3 * MIB))
    await worker.stop()


async def test_a_question_may_be_large_too(worker: WorkerProcess) -> None:
    async with asyncio.timeout(20):
        assert (await worker.ask(Parcel({}, bytes(MIB)))).fields["length"] == MIB


async def test_memory_is_free_again_after_calls_that_were_cancelled_or_failed(worker: WorkerProcess) -> None:
    large = bytes(60 * MIB)
    for _ in range(3):
        replies = await worker.stream(Parcel({"do": "hold"}, large))
        with replies:
            await anext(replies)
        with pytest.raises(AttemptError):
            await worker.unary(Parcel({"do": "refuse"}, large))
    while worker.running:  # noqa: ASYNC110  # the engine's end is no event here
        await asyncio.sleep(0.001)
    async with asyncio.timeout(20):
        # More at once than three that were forgotten would leave room for.
        answer = await worker.unary(Parcel({"do": "look"}, bytes(200 * MIB)))
    assert answer.fields["shared"]


async def test_an_answer_that_was_read_makes_room_for_the_next(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, view = [], SharedArea.view

    def watched(area: SharedArea, start: int, length: int) -> memoryview:
        starts.append(start)
        return view(area, start, length)

    monkeypatch.setattr(SharedArea, "view", watched)
    for _ in range(3):
        await _echo(worker, bytes(MIB))
    assert starts == [0, 0, 0]


async def test_content_lies_in_no_file_of_a_name(worker: WorkerProcess) -> None:
    before = set(Path("/dev/shm").iterdir())
    replies = await worker.stream(Parcel({"do": "hold"}, b"secret" * MIB))
    with replies:
        await anext(replies)
        assert worker.pid is not None
        assert set(Path("/dev/shm").iterdir()) == before
        assert {each.path for each in psutil.Process(worker.pid).open_files()} <= {"/memfd:edgewise (deleted)"}


async def test_an_address_that_is_none_is_a_typed_failure(worker: WorkerProcess) -> None:
    with pytest.raises(AttemptError) as failed:
        await worker.unary(Parcel({"do": "misdirect"}))
    assert failed.value.kind is FailureKind.PROTOCOL
