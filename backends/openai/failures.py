"""From HTTP's status, the API's error codes and the client's exceptions to what happened.

A server's own text is read here to tell a few faults apart, and goes no further.
"""

from __future__ import annotations

import errno
import json
import math
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from ...core.failure import AttemptError, FailureKind, PathFault


class ReportedFailure(Exception):
    """A failure that a server reports inside a stream. Holds none of its text."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind.value)
        self.kind = kind


KIND_BY_STATUS: dict[int, FailureKind] = {
    400: FailureKind.INVALID_REQUEST,
    401: FailureKind.CREDENTIALS,
    402: FailureKind.CREDENTIALS,
    403: FailureKind.CREDENTIALS,
    404: FailureKind.MODEL_UNAVAILABLE,
    405: FailureKind.UNSUPPORTED,
    408: FailureKind.TIMED_OUT,
    409: FailureKind.CONFLICT,
    413: FailureKind.CONTEXT_LENGTH,
    422: FailureKind.INVALID_REQUEST,
    429: FailureKind.OVERLOADED,
    500: FailureKind.INTERNAL,
    501: FailureKind.UNSUPPORTED,
    502: FailureKind.UNREACHABLE,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMED_OUT,
}
"""Another 5xx is internal; everything else is another protocol, such as a captive portal's redirect."""

_KIND_BY_CODE: dict[str, FailureKind] = {
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH,
    "string_above_max_length": FailureKind.CONTEXT_LENGTH,
    "exceed_context_size_error": FailureKind.CONTEXT_LENGTH,
    "content_filter": FailureKind.CONTENT_FILTER,
    "content_policy_violation": FailureKind.CONTENT_FILTER,
    "model_not_found": FailureKind.MODEL_UNAVAILABLE,
    "invalid_api_key": FailureKind.CREDENTIALS,
    "insufficient_quota": FailureKind.CREDENTIALS,
    "rate_limit_exceeded": FailureKind.OVERLOADED,
}

_SENTENCES: dict[FailureKind, str] = {
    FailureKind.UNREACHABLE: "cannot be reached",
    FailureKind.OVERLOADED: "has no room now",
    FailureKind.CONFLICT: "gave the call up",
    FailureKind.TIMED_OUT: "did not answer in time",
    FailureKind.TRUNCATED: "ended without saying why",
    FailureKind.INTERNAL: "failed by its own account",
    FailureKind.PROTOCOL: "does not speak this API; check `url`",
    FailureKind.CREDENTIALS: "does not accept our credentials, or nothing is left on the account",
    FailureKind.MODEL_UNAVAILABLE: "does not have the model; check `model` and `url`",
    FailureKind.UNSUPPORTED: "cannot do this; check `url`",
    FailureKind.CONTEXT_LENGTH: "cannot take a request of this length",
    FailureKind.CONTENT_FILTER: "refuses this content",
    FailureKind.INVALID_REQUEST: "finds the request invalid",
    FailureKind.PREEMPTED: "was stopped",
}

_TLS_SENTENCES = {
    PathFault.INTERCEPTED: "has a TLS certificate that cannot be trusted, or does not speak TLS; check `tls` and `url`",
    PathFault.BROKEN: "refuses our TLS handshake; check `url` and `tls`",
}

_BROKEN_OFF = ("Server disconnected", "peer closed connection")


def failure(backend: str, kind: FailureKind) -> AttemptError:
    """A failure of this kind, in our own words."""
    return AttemptError(kind, f"backend {backend!r} {_SENTENCES[kind]}")


def from_response(backend: str, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
    """What an answer that is none means."""
    error = _error(body)
    kind = kind_of_error(error) if status >= 400 else None
    if kind is None:
        kind = KIND_BY_STATUS.get(status, FailureKind.INTERNAL if 500 <= status < 600 else FailureKind.PROTOCOL)
        if status == 404 and not error.get("error"):
            kind = FailureKind.PROTOCOL  # there is no such path: nobody looked for a model
    return AttemptError(
        kind, f"backend {backend!r} {_SENTENCES[kind]} (HTTP {status})", retry_after=_retry_after(headers)
    )


def from_exception(backend: str, error: Exception) -> AttemptError:
    """What the client's exception means."""
    if isinstance(error, ReportedFailure):
        return failure(backend, error.kind)
    if isinstance(error, ValueError):
        return failure(backend, FailureKind.PROTOCOL)
    if isinstance(error, httpx.ConnectError) and (fault := _tls_fault(error)) is not None:
        return AttemptError(FailureKind.PROTOCOL, f"backend {backend!r} {_TLS_SENTENCES[fault]}", fault=fault)
    if isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith(_BROKEN_OFF):
        return failure(backend, FailureKind.PROTOCOL)
    unreachable = failure(backend, FailureKind.UNREACHABLE)
    unreachable.fault = _fault(error)
    return unreachable


def kind_of_error(answer: Mapping[str, Any]) -> FailureKind | None:
    """The kind that an error's own code names."""
    error = answer.get("error")
    if not isinstance(error, Mapping):
        return None
    named = (_KIND_BY_CODE.get(str(error.get(key))) for key in ("code", "type"))
    return next((kind for kind in named if kind is not None), None)


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, Mapping) else {}


def _fault(error: BaseException | None) -> PathFault | None:
    """Where the way is broken, by what the operating system said."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return PathFault.REFUSED
        if isinstance(error, socket.gaierror):
            return PathFault.NO_NAME
        if isinstance(error, OSError) and error.errno == errno.ENETUNREACH:
            return PathFault.NO_ROUTE
        if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError | ssl.SSLError):
            return PathFault.BROKEN
        error = error.__cause__ or error.__context__
    return None


def _tls_fault(error: BaseException | None) -> PathFault | None:
    """Which side ended a TLS handshake, if one did: ours, or by its alert the other."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return PathFault.BROKEN if "_ALERT_" in (error.reason or "") else PathFault.INTERCEPTED
        error = error.__cause__ or error.__context__
    return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    for key, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[key]) / scale
        except (KeyError, ValueError):  # a date is not read: clocks differ
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
