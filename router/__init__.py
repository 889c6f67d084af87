"""The client: import `Router` or `AsyncRouter`, give it a YAML policy, ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.answer import Answer, Chunk, FinishReason, LabelScore, TokenLogprob, Usage
from ..core.content import Message, Role
from ..core.decision import AttemptRecord, Decision, Refusal, RefusalCode, Seam
from ..core.errors import (
    BackendError,
    ConfigurationError,
    DeadLetter,
    DeadlineExceeded,
    EdgewiseError,
    InvalidRequest,
    ModelUnavailable,
    NoBackendPermitted,
    Offline,
    OutboxError,
    OutboxFull,
    OutboxLocked,
    Overloaded,
    PartialAnswer,
    PolicyError,
    RequestError,
    RouterClosed,
)
from ..core.failure import AttemptError, FailureKind

if TYPE_CHECKING:
    from ..policies.plan import Plan
    from .client.arrays import Tensors, Vectors
    from .client.async_router import AsyncRouter
    from .client.blocking_router import Router
    from .client.blocking_stream import BlockingStream
    from .client.classified import Classified
    from .client.token_count import TokenCount
    from .link import Connectivity
    from .options import GenerateOptions, RequestOptions, StreamOptions
    from .stats import RouterStats

__all__ = [
    "Answer",
    "AsyncRouter",
    "AttemptError",
    "AttemptRecord",
    "BackendError",
    "BlockingStream",
    "Chunk",
    "Classified",
    "ConfigurationError",
    "Connectivity",
    "DeadLetter",
    "DeadlineExceeded",
    "Decision",
    "EdgewiseError",
    "FailureKind",
    "FinishReason",
    "GenerateOptions",
    "InvalidRequest",
    "LabelScore",
    "Message",
    "ModelUnavailable",
    "NoBackendPermitted",
    "Offline",
    "OutboxError",
    "OutboxFull",
    "OutboxLocked",
    "Overloaded",
    "PartialAnswer",
    "Plan",
    "PolicyError",
    "Refusal",
    "RefusalCode",
    "RequestError",
    "RequestOptions",
    "Role",
    "Router",
    "RouterClosed",
    "RouterStats",
    "Seam",
    "StreamOptions",
    "Tensors",
    "TokenCount",
    "TokenLogprob",
    "Usage",
    "Vectors",
]

_LAZY = {
    "AsyncRouter": ".client.async_router",
    "BlockingStream": ".client.blocking_stream",
    "Classified": ".client.classified",
    "Connectivity": ".link",
    "GenerateOptions": ".options",
    "Plan": "..policies.plan",
    "RequestOptions": ".options",
    "Router": ".client.blocking_router",
    "RouterStats": ".stats",
    "StreamOptions": ".options",
    "Tensors": ".client.arrays",
    "TokenCount": ".client.token_count",
    "Vectors": ".client.arrays",
}


def __getattr__(name: str) -> Any:
    # The routers bring asyncio and the policy engine; whoever needs only an error or a Message does not wait for them.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
