"""What callers give: a prompt, and keyword options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from ..core.content import Message

Prompt = str | Sequence[Message]
"""A text stands for one message of the user's."""


class RequestOptions(TypedDict, total=False):
    """What every call takes.

    Attributes:
        data_class: the content's data class, or several (their strictest combination counts); the policy's default
            where absent.
        latency_budget: seconds, or a text like ``'800ms'``, within which the call ends.
        first_token_budget: seconds, or a text like ``'800ms'``, within which a stream's first token comes.
        priority: ``'low'``, ``'normal'`` or ``'high'``.
        tags: labels that the policy declares, each with one of its listed values.
        residency: a narrowing of where content may go: ``{'process_in': ['DE'], …}`` with the keys of a data class.
        backend: the name of the backend to use, or several; only narrows what the policy permits.
        idempotent: ``False`` forbids everything that could run the request twice.
        idempotency_key: what a server recognises a repeated request by; random where absent. Never content.
        conversation: an id; what follows under it has at least the data classes that came before, stays within every
            ``residency`` that came before, and at its backend while that one is good. Give the whole history with each
            call: none is kept here.
    """

    data_class: str | Sequence[str] | None
    latency_budget: float | str | None
    first_token_budget: float | str | None
    priority: str
    tags: Mapping[str, str]
    residency: Mapping[str, Sequence[str]] | None
    backend: str | Sequence[str] | None
    idempotent: bool
    idempotency_key: str | None
    conversation: str | None


class GenerateOptions(RequestOptions, total=False):
    """What `generate`, `stream` and `plan` take besides.

    Attributes:
        max_output_tokens: an upper bound; 256 where absent.
        temperature: 0 is greedy; 0.8 where absent.
        top_p: nucleus sampling; 0.95 where absent.
        seed: the same seed gives the same text on the same backend.
        stop: a text, or several, that end the answer and are not part of it.
        response_format: ``{'type': 'json_object'}``, ``{'type': 'json_schema', 'schema': {…}}`` or
            ``{'type': 'grammar', 'grammar': '…'}`` (GBNF).
        logprobs: each token's log-probability and that of so many alternatives, 0 to 20.
    """

    max_output_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: str | Sequence[str]
    response_format: Mapping[str, Any] | None  # JSON, as the caller writes it
    logprobs: int | None


class StreamOptions(GenerateOptions, total=False):
    """What `stream` takes besides.

    Attributes:
        stream_failover: what may happen when the stream breaks after its first text, whatever the policy says:
            ``'none'`` raises `PartialAnswer`; ``'continue'`` lets another backend continue the text; ``'restart'`` also
            lets the answer begin anew where none can: the chunk where it does has a ``seam`` that ``restarts``, and
            what was shown before is to be discarded.
    """

    stream_failover: Literal["continue", "restart", "none"]
