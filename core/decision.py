"""The record of how a request was decided and carried through. It holds no content."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from .duration import format_duration
from .failure import FailureKind
from .request import Task


class RefusalCode(StrEnum):
    """Why a plan leaves a backend out."""

    RESIDENCY = "residency"
    DENIED = "denied"
    NOT_SELECTED = "not_selected"
    CALLER_NARROWED = "caller_narrowed"
    CAPABILITY = "capability"
    CONTEXT_LENGTH = "context_length"
    OFFLINE = "offline"
    UNREACHABLE = "unreachable"
    INTERCEPTED = "intercepted"
    QUARANTINED = "quarantined"
    LOADING = "loading"
    PRICE = "price"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one backend was left out: a code for programs, a sentence for people."""

    backend: str
    code: RefusalCode
    sentence: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of the plan as recorded: who, in which part, and when at the latest it starts (seconds from entry)."""

    backend: str
    last_resort: bool
    starts_at: float | None
    reason: str


@dataclass(slots=True)
class AttemptRecord:
    """One attempt. Times are seconds from the request's entry.

    Tokens are the backend's own count where it answered; of an attempt that did not, those that came and an estimate
    of its prompt. ``cost`` is what they cost, in US dollars; ``None`` where no price is configured. A backend that
    refused before its first token is taken to charge nothing.
    """

    backend: str
    reason: str
    started: float
    first_token: float | None = None
    ended: float | None = None
    failure: FailureKind | None = None
    sentence: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Seam:
    """Where the answering backend changes within a stream, and why.

    ``restarts``: the answer begins anew from here. What came before is not part of it, and whoever has shown it takes
    it back. Only calls with ``stream_failover='restart'`` have such a seam; of any other the text goes on.
    """

    from_backend: str
    to_backend: str
    reason: str
    restarts: bool = False


@dataclass(slots=True)
class Decision:
    """Why a request went where it went, what was tried, and how long it took.

    It holds labels, names, times and reasons; never content. Times are seconds from the request's entry.
    """

    request_id: str
    task: Task
    data_classes: tuple[str, ...]
    policy_version: str
    latency_budget: float
    first_token_budget: float | None
    reason: str
    steps: tuple[PlannedStep, ...]
    refusals: tuple[Refusal, ...]
    matched_rules: tuple[str, ...]
    notes: tuple[str, ...] = ()
    planning: float = 0.0
    attempts: list[AttemptRecord] = field(default_factory=list)
    seams: list[Seam] = field(default_factory=list)
    answered_by: str | None = None
    ended: float | None = None

    @property
    def cost(self) -> float | None:
        """What all attempts cost together, in US dollars; ``None`` where none was at a backend with a price."""
        costs = [attempt.cost for attempt in self.attempts if attempt.cost is not None]
        return sum(costs) if costs else None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values that JSON takes."""
        return asdict(self)

    def explain(self) -> str:
        """The record as people read it, several lines."""
        classes = " + ".join(self.data_classes) or "none"
        lines = [f"{self.task} of class {classes}: {self.reason}"]
        budget = f"  budget {format_duration(self.latency_budget)}"
        if self.first_token_budget is not None:
            budget += f", first token {format_duration(self.first_token_budget)}"
        lines.append(f"{budget}; decided in {format_duration(self.planning)}")
        for step in self.steps:
            when = "" if step.starts_at is None else f", starts {format_duration(step.starts_at)} at the latest"
            part = "last resort" if step.last_resort else "step"
            lines.append(f"  {part} {step.backend}: {step.reason}{when}")
        lines += [f"  not {refusal.backend}: {refusal.sentence} ({refusal.code})" for refusal in self.refusals]
        lines += [f"  rule {name!r} matched" for name in self.matched_rules]
        lines += [f"  note: {note}" for note in self.notes]
        for attempt in self.attempts:
            lines.append(f"  {_attempt_line(attempt)}")
        for seam in self.seams:
            anew = ", begun anew" if seam.restarts else ""
            lines.append(f"  seam: {seam.from_backend} -> {seam.to_backend}{anew}, {seam.reason}")
        if self.answered_by is not None and self.ended is not None:
            lines.append(f"  answered by {self.answered_by} after {format_duration(self.ended)}")
        return "\n".join(lines)


def _attempt_line(attempt: AttemptRecord) -> str:
    parts = [f"tried {attempt.backend} at {format_duration(attempt.started)} ({attempt.reason})"]
    if attempt.first_token is not None:
        parts.append(f"first token at {format_duration(attempt.first_token)}")
    if attempt.failure is not None and attempt.ended is not None:
        parts.append(f"{attempt.failure} at {format_duration(attempt.ended)}: {attempt.sentence}")
    elif attempt.ended is not None:
        parts.append(f"done at {format_duration(attempt.ended)}")
    if attempt.prompt_tokens or attempt.output_tokens:
        parts.append(f"{attempt.prompt_tokens} + {attempt.output_tokens} tokens")
    if attempt.cost:
        parts.append(f"${attempt.cost:.6f}")
    return ", ".join(parts)
