"""A request: what is asked, its labels, and its sealed content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from .content import Content, Sealed
from .place import PlaceSet


class Task(StrEnum):
    """The kinds of work."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    INFER = "infer"
    COUNT_TOKENS = "count_tokens"


class Priority(StrEnum):
    """Who goes first where requests wait: of these, the last."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Residency:
    """A caller's own narrowing of where content may go, with the keys of a data class; ``None`` narrows nothing."""

    process_in: PlaceSet | None = None
    store_in: PlaceSet | None = None
    operators: PlaceSet | None = None

    def meet(self, other: Residency) -> Residency:
        """The narrowing of both."""
        return Residency(
            _meet(self.process_in, other.process_in),
            _meet(self.store_in, other.store_in),
            _meet(self.operators, other.operators),
        )

    def names(self) -> dict[str, list[str]]:
        """The keys that narrow, as a caller would write them."""
        keys = {"process_in": self.process_in, "store_in": self.store_in, "operators": self.operators}
        return {key: places.names() for key, places in keys.items() if places is not None}


def _meet(one: PlaceSet | None, other: PlaceSet | None) -> PlaceSet | None:
    if one is None or other is None:
        return one or other
    return one.meet(other)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a policy may know of a request, and all that is ever recorded of it. Never its content.

    Budgets are seconds, ``None`` where the caller gave none. ``prompt_tokens`` is an estimate: UTF-8 bytes / 3,
    rounded up. ``data_classes`` are the names given with the call and with each message.
    ``backends`` narrows to these names; empty narrows nothing.
    """

    task: Task
    data_classes: tuple[str, ...] = ()
    latency_budget: float | None = None
    first_token_budget: float | None = None
    max_output_tokens: int = 0
    prompt_tokens: int = 0
    priority: Priority = Priority.NORMAL
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    residency: Residency | None = None
    backends: tuple[str, ...] = ()
    model: str = ""
    """For ``infer``: the model's name. Empty otherwise."""
    streaming: bool = False
    continues: bool = False
    """The last message is the assistant's: only a backend that can continue a text can answer."""
    constrained: bool = False
    """A response format is asked for."""
    logprobs: bool = False
    idempotent: bool = True
    """False forbids whatever could run the request twice: retry, overlap and fallback once content was sent."""
    unclassed: bool = False
    """Some content has no class of its own and the call gave none: the policy's default holds beside the rest."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request on its way. ``started_at`` is its entry on the event loop's clock; all budgets count from there."""

    id: str
    labels: Labels
    content: Sealed[Content]
    started_at: float
    idempotency_key: str
