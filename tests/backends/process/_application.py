"""An application with one worker, to be killed by a test. Prints the worker's process id while the engine works."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from edgewise.backends.process.engine import Parcel
from edgewise.backends.process.worker_process import WorkerProcess

sys.path.append(str(Path(__file__).parent))


async def main(do: str, *then: str) -> None:
    worker = WorkerProcess("probe", "_probe_engine:ProbeEngine", {})
    await worker.start()
    with await worker.stream(Parcel({"do": do})) as replies:
        async for _ in replies:
            if "fork" in then and os.fork() == 0:
                os.close(1)
                signal.alarm(10)
                signal.pause()
            print(worker.pid, flush=True)


asyncio.run(main(*sys.argv[1:]))
