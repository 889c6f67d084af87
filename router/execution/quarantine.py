"""What a backend cannot do until a person mends its configuration."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.decision import RefusalCode
from ...core.failure import AttemptError, Quarantine
from ...core.request import Task
from ...policies.facts import NotReady


class QuarantineWard:
    """One backend's quarantine, for a kind of work or altogether. It ends with the router."""

    def __init__(self) -> None:
        self._reasons: dict[Task | None, str] = {}

    def refusal(self, task: Task) -> NotReady | None:
        """Why this kind of work is not given to the backend, or ``None``."""
        if not self._reasons:
            return None
        reason = self._reasons.get(None) or self._reasons.get(task)
        if reason is None:
            return None
        return NotReady(RefusalCode.QUARANTINED, f"out of use until its configuration is mended: {reason}")

    def reasons(self, tasks: Iterable[Task]) -> dict[Task, str]:
        """Why it is out of use, for each of these kinds of work that it is."""
        reasons = {task: self._reasons.get(None) or self._reasons.get(task) for task in tasks}
        return {task: reason for task, reason in reasons.items() if reason is not None}

    def note(self, error: AttemptError, task: Task | None) -> bool:
        """Take note of a failure; ``task`` is ``None`` for one at the start. Returns whether it is a new reason."""
        scope = error.disposition.quarantine
        if scope is None:
            return False
        key = None if scope is Quarantine.BACKEND else task
        new = key not in self._reasons
        self._reasons[key] = error.sentence
        return new
