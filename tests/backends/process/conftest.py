from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.frames import JsonObject
from edgewise.backends.process.worker_process import WorkerProcess
from edgewise.core.failure import AttemptError

# Workers look for engines where the application does.
sys.path.append(str(Path(__file__).parent))

PROBE = "_probe_engine:ProbeEngine"


@pytest.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess("probe", PROBE, {"setting": 1}, hang_after=1.0)
    await process.start()
    yield process
    await process.stop()


async def echo(worker: WorkerProcess, payload: bytes = b"hello") -> None:
    async with asyncio.timeout(10):
        answer = await worker.unary(Parcel({"do": "echo"}, payload))
    assert answer.payload == payload


async def failure_of(worker: WorkerProcess, fields: JsonObject) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        async with asyncio.timeout(10):
            await worker.unary(Parcel(fields))
    return caught.value


async def started(worker: WorkerProcess, do: str) -> AsyncGenerator[Parcel, None]:
    with await worker.stream(Parcel({"do": do})) as replies:
        async for event in replies:
            yield event
