"""What every backend whose engine works in a process of its own has in common."""

from __future__ import annotations

from ..backend import Backend, BackendHealth
from .worker_process import WorkerProcess


class WorkerBackend(Backend):
    """A backend whose work is done by one supervised process."""

    def __init__(self, name: str, worker: WorkerProcess) -> None:
        super().__init__(name)
        self.worker = worker
        """The supervised process."""

    def health(self) -> BackendHealth:
        """The worker's."""
        return self.worker.health

    async def start(self) -> None:
        """Prove the model files, start the worker, load. Raises `AttemptError` when that cannot be."""
        await self.worker.start()

    async def stop(self) -> None:
        """End the worker and all calls. Idempotent."""
        await self.worker.stop()
