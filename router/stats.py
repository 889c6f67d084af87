"""What a router knows of its backends now: what they would take, how they are doing, what they cost. No content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..backends import HealthState
from ..core.failure import FailureKind
from ..core.request import Task
from ..policies.facts import LinkState
from .execution.breaker import BreakerState

TYPICAL_PROMPT_TOKENS = 100
TYPICAL_OUTPUT_TOKENS = 256
"""The request that predictions are told for: so long a prompt, at most so long an answer."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A predicted time in seconds: half of all calls take at most ``p50``, 95 % at most ``p95``."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class TaskStats:
    """What a typical call would take now, from its start, the queue left out.

    ``first_token`` is the time to the first token, ``output_token`` the time for each further one (``None`` for work
    with one result), ``total`` the time to the last. ``observations`` is how many count now; they fade. ``known`` is
    false where they are too few to rely on.
    """

    first_token: Quantiles
    output_token: Quantiles | None
    total: Quantiles
    observations: float
    known: bool


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Attempts that run (at most ``capacity``), that wait, and requests that hold the backend in reserve."""

    capacity: int
    running: int
    waiting: int
    promised: int


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """The breaker. ``failure_share`` is of the last outcomes; ``pause`` is for how many seconds more it is open."""

    state: BreakerState
    failures_in_a_row: int
    failure_share: float
    pause: float


@dataclass(frozen=True, slots=True)
class RetryTokens:
    """How many retries and hedges the backend may be sent now, beyond first attempts."""

    retries: float
    hedges: float


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """What became of the attempts since the router was made.

    ``started`` = ``succeeded`` + ``stopped`` (by us: another was faster, or the caller left) + all ``failed`` + those
    that still run or wait. Tokens and ``cost``, in US dollars (``None`` without a price), are of all that ended.
    """

    started: int
    succeeded: int
    stopped: int
    failed: Mapping[FailureKind, int]
    prompt_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class BackendStats:
    """One backend. ``quarantine`` has the reason for each kind of work that it is out of use for.

    ``progress`` is how much of a loading is done, from 0 to 1; ``None`` where nothing loads, or nobody knows.
    """

    health: HealthState
    health_sentence: str
    progress: float | None
    tasks: Mapping[Task, TaskStats]
    queue: QueueStats
    breaker: BreakerStats
    quarantine: Mapping[Task, str]
    retry_tokens: RetryTokens
    attempts: AttemptCounts


@dataclass(frozen=True, slots=True)
class RouterStats:
    """A snapshot of a router. Backends stand in the order of the configuration."""

    link: LinkState
    policy_version: str
    backends: Mapping[str, BackendStats]

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as plain values that JSON takes."""
        return asdict(self)
