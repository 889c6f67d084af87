"""What a backend cannot do until a person mends something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...core.decision import RefusalCode
from ...core.failure import AttemptError, FailureKind, Quarantine
from ...core.request import Task
from ...policies.facts import NotReady


class _Cause(NamedTuple):
    kind: FailureKind
    sentence: str


class QuarantineWard:
    """One backend's quarantine, for a kind of work or altogether.

    It ends with the router, or when ``is_mended`` says of a kind of failure that its cause may be gone.
    """

    def __init__(self, is_mended: Callable[[FailureKind], bool]) -> None:
        self._is_mended = is_mended
        self._causes: dict[Task | None, _Cause] = {}

    def refusal(self, task: Task) -> NotReady | None:
        """Why this kind of work is not given to the backend, or ``None``."""
        if not self._causes:
            return None
        self._drop_the_mended()
        cause = self._cause(task)
        if cause is None:
            return None
        sentence = f"out of use until it is mended: {cause.sentence}"
        return NotReady(RefusalCode.QUARANTINED, sentence)

    def reasons(self, tasks: Iterable[Task]) -> dict[Task, str]:
        """Why it is out of use, for each of these kinds of work that it is."""
        self._drop_the_mended()
        causes = {task: self._cause(task) for task in tasks}
        return {task: cause.sentence for task, cause in causes.items() if cause is not None}

    def note(self, error: AttemptError, task: Task | None) -> bool:
        """Take note of a failure; ``task`` is ``None`` for one at the start. Returns whether it is a new reason."""
        scope = error.disposition.quarantine
        if scope is None:
            return False
        key = None if scope is Quarantine.BACKEND else task
        new = key not in self._causes
        self._causes[key] = _Cause(error.kind, error.sentence)
        return new

    def _drop_the_mended(self) -> None:
        mended = {kind for kind in {cause.kind for cause in self._causes.values()} if self._is_mended(kind)}
        self._causes = {key: cause for key, cause in self._causes.items() if cause.kind not in mended}

    def _cause(self, task: Task) -> _Cause | None:
        return self._causes.get(None) or self._causes.get(task)
