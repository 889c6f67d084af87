"""How a model that cannot be used is refused."""

from __future__ import annotations

from ...core.failure import AttemptError, FailureKind


def unavailable(model: str, why: str) -> AttemptError:
    """MODEL_UNAVAILABLE for a model that cannot be used, and why."""
    return AttemptError(FailureKind.MODEL_UNAVAILABLE, f"model {model!r} cannot be used: {why}")
