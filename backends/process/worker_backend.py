"""What every backend whose engine works in a process of its own has in common."""

from __future__ import annotations

import logging

from ...core.failure import FailureKind
from ..backend import Backend, BackendHealth, HealthState
from .worker_process import WorkerProcess

log = logging.getLogger("edgewise")


class WorkerBackend(Backend):
    """A backend whose work is done by one supervised process.

    Where the engine does with less than its settings ask for, `Engine.load` returns a sentence of it as ``fallback``.
    """

    def __init__(self, name: str, worker: WorkerProcess) -> None:
        super().__init__(name)
        self.worker = worker
        """The supervised process."""

    def health(self) -> BackendHealth:
        """The worker's; where it does with less than was asked for, its sentence says so."""
        health = self.worker.health
        fallback = str(self.worker.info.get("fallback", ""))
        return BackendHealth(health.state, fallback) if health.state is HealthState.READY else health

    def is_mended(self, kind: FailureKind) -> bool:
        """Whether the worker may look again for a model that it could not use."""
        return kind is FailureKind.MODEL_UNAVAILABLE and self.worker.health.state is not HealthState.DOWN

    async def start(self) -> None:
        """Prove the model files, start the worker, load. Raises `AttemptError` when that cannot be."""
        await self.worker.start()
        if sentence := self.health().sentence:
            log.warning("backend %r: %s", self.name, sentence)

    async def stop(self) -> None:
        """End the worker and all calls. Idempotent."""
        await self.worker.stop()
