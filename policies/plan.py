"""What a policy grants for one request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ..core.decision import Refusal
from ..core.permit import Permit
from .facts import Prediction


class StreamFailover(StrEnum):
    """What may happen when a stream breaks after its first text."""

    CONTINUE = "continue"
    """Another backend continues the text, where one can."""
    NONE = "none"
    """`PartialAnswer` at once."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How an attempt is repeated where nothing else is left. Times are seconds."""

    max_attempts: int
    initial_backoff: float
    max_backoff: float


# Named tuples, because a plan is made for every request: a frozen dataclass takes three times as long to build.


class Step(NamedTuple):
    """One permitted backend, in its place in the order.

    ``starts_at`` is set for the last resort alone: its last safe moment in seconds from the request's entry, at which
    it starts beside whatever still runs. Every other step starts when the one before it has failed.
    ``reason`` says why it stands here.
    """

    backend: str
    permit: Permit
    prediction: Prediction
    p_done: float
    reason: str
    last_resort: bool
    starts_at: float | None
    avoided: bool


class Plan(NamedTuple):
    """The ordered steps granted for one request, and for every backend left out, the reason.

    ``steps`` is empty when nothing is permitted. ``data_classes`` are the effective ones (the default included).
    Budgets are seconds from the request's entry, after defaults and rules.
    """

    request_id: str
    policy_version: str
    data_classes: tuple[str, ...]
    latency_budget: float
    first_token_budget: float | None
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    matched_rules: tuple[str, ...]
    notes: tuple[str, ...]
    reason: str
    """One sentence: why the first step is first, or why there is none."""
    retry: Retry
    stream_failover: StreamFailover
    hedge: bool
    """Whether a second backend may be asked while the first is silent: every class and the last rule say so."""
    online_would_help: bool = False
    """Whether being online would have permitted something: the difference of `Offline` from `NoBackendPermitted`."""
