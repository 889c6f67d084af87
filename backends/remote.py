"""What every backend that is a service elsewhere has in common, whatever it speaks."""

from __future__ import annotations

from ..core.failure import AttemptError, FailureKind
from ..core.request import Task
from .backend import Backend, BackendHealth, Capabilities, HealthState


class RemoteBackend(Backend):
    """A service elsewhere. Opens nothing before its first call; belongs to the event loop of that call.

    How many calls run at once is kept by whoever calls, from ``capabilities.max_concurrency``.
    """

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        super().__init__(name)
        self._capabilities = capabilities
        self._stopped = False
        self._last_failure = ""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def health(self) -> BackendHealth:
        """Ready until stopped: whether it can be reached shows in calls alone. ``sentence`` is the last failure."""
        if self._stopped:
            return BackendHealth(HealthState.DOWN, f"backend {self.name!r} was stopped")
        return BackendHealth(HealthState.READY, self._last_failure)

    def _require(self, task: Task) -> None:
        if task not in self._capabilities.tasks:
            raise self._unsupported(task)

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            raise AttemptError(FailureKind.UNREACHABLE, f"backend {self.name!r} was stopped")
