"""What became of a backend's attempts."""

from __future__ import annotations

from collections import Counter

from ...core.decision import AttemptRecord
from ...core.failure import FailureKind


class Tally:
    """Counts one backend's attempts from when they pass its breaker to how they ended."""

    def __init__(self) -> None:
        self.started = 0
        self.succeeded = 0
        self.stopped = 0
        self.failed: Counter[FailureKind] = Counter()
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.cost = 0.0

    def count(self, ended: AttemptRecord) -> None:
        """An attempt has ended."""
        if ended.failure is None:
            self.succeeded += 1
        elif ended.failure is FailureKind.PREEMPTED:
            self.stopped += 1
        else:
            self.failed[ended.failure] += 1
        self.prompt_tokens += ended.prompt_tokens
        self.output_tokens += ended.output_tokens
        self.cost += ended.cost or 0.0
