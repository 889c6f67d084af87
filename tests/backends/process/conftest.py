from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewise.backends.process.worker_process import WorkerProcess

# Workers look for engines where the application does.
sys.path.append(str(Path(__file__).parent))

PROBE = "_probe_engine:ProbeEngine"


@pytest.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess("probe", PROBE, {"setting": 1}, hang_after=1.0)
    await process.start()
    yield process
    await process.stop()
