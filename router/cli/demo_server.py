"""The demonstration's model server: `edgewise serve` in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

import psutil

from .demo_configuration import SERVER
from .ending import CommandError

_LOADS_WITHIN = 180.0
_DRAINS_WITHIN = 15.0
_WORKERS_END_WITHIN = 5.0
_LAST_WORDS = 600


class DemoServer:
    """A server on a loopback port. ``folder`` keeps its configuration and what it said on stderr."""

    def __init__(self, folder: Path) -> None:
        self._configuration = folder / "server.yaml"
        self._configuration.write_text(SERVER, encoding="utf-8")
        self._stderr = folder / "server.log"
        self._process: Process | None = None
        self._workers: list[psutil.Process] = []
        self.address = ""

    async def start(self) -> None:
        """Start it and wait until it serves: on a free port at first, later on the same one again."""
        await self.stop()
        listen = ["--listen", self.address] if self.address else []
        with self._stderr.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __package__, "serve", "--config", str(self._configuration), *listen),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=stderr,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_LOADS_WITHIN):
                line = (await self._process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        if not line.startswith("serving "):
            raise CommandError(f"the server did not start: {self._last_words()}", "mend what it says, and start again")
        self.address = line.split()[-1]
        self._workers = psutil.Process(self._process.pid).children(recursive=True)

    async def kill(self) -> None:
        """SIGKILL, by its process id: it gets no chance to say good-bye."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End it, and see to it that none of its workers is left."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_DRAINS_WITHIN):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        # They end by themselves when their server is gone.
        _, left = await asyncio.to_thread(psutil.wait_procs, self._workers, _WORKERS_END_WITHIN)
        for worker in left:
            worker.kill()

    def _last_words(self) -> str:
        said = self._stderr.read_text(encoding="utf-8", errors="replace").strip()
        return said[-_LAST_WORDS:] or f"it said nothing for {_LOADS_WITHIN:.0f} s"
