"""How long a backend may be silent within its answer before that counts as a stall."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.failure import AttemptError, FailureKind
from .attempt import Attempt

STALL_FACTOR = 20.0
"""A pause of so many times the backend's p95 time per token is a stall, within the next two bounds."""
SHORTEST_STALL = 0.5
LONGEST_STALL = 10.0

LEAST_STALL = 0.05
LEAST_STALL_FACTOR = 5.0
"""The same where the last safe moment of whoever could go on has come: then a short silence is enough."""


@dataclass(frozen=True, slots=True)
class Silence:
    """How long an answer may be silent: ``limit`` seconds, but not past ``last_safe``, and never under ``least``."""

    limit: float
    least: float
    last_safe: float

    @classmethod
    def of(cls, attempt: Attempt, last_safe: float) -> Silence:
        """By what is known of the attempt's backend; ``last_safe`` is the last safe moment of whoever could go on."""
        usual = attempt.member.estimators[attempt.run.request.labels.task].output_token_p95()
        return cls(
            limit=min(max(SHORTEST_STALL, STALL_FACTOR * usual), LONGEST_STALL),
            least=max(LEAST_STALL, LEAST_STALL_FACTOR * usual),
            last_safe=last_safe,
        )

    def due(self, begun: float) -> float:
        """When a silence that begins then is too long."""
        return min(begun + self.limit, max(self.last_safe, begun + self.least))


def stalled(attempt: Attempt) -> AttemptError:
    """The failure of a backend that was silent for too long."""
    return AttemptError(FailureKind.STALLED, f"backend {attempt.step.backend!r} fell silent within its answer")
