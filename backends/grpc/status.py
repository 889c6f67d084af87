"""From gRPC's status to what happened: all seventeen codes, in-band refinements, and when to come back.

A server's own text is read here to tell a few faults apart, and goes no further.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from ...core.failure import AttemptError, FailureKind, PathFault
from ...protos.v1.status_details_pb2 import ErrorInfo, RetryInfo, StatusDetails
from .wire_protocol import ReportedFailure

M = TypeVar("M", bound=Message)

FAILURE_KEY = "edgewise-failure"
"""Trailing metadata: the `FailureKind` by name, where a status code says too little."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata: when to ask again, in milliseconds; a negative number means never."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata: a google.rpc.Status."""

ERROR_DOMAIN = "edgewise"
"""Whose `FailureKind` an ErrorInfo in there names as its reason."""

_Code = grpc.StatusCode

KIND_BY_CODE: dict[grpc.StatusCode, FailureKind] = {
    # A call that ends well without its answer.
    _Code.OK: FailureKind.TRUNCATED,
    # By the server: our own cancelling never arrives here. The connection is sound.
    _Code.CANCELLED: FailureKind.CONFLICT,
    _Code.UNKNOWN: FailureKind.INTERNAL,
    _Code.INVALID_ARGUMENT: FailureKind.INVALID_REQUEST,
    _Code.DEADLINE_EXCEEDED: FailureKind.TIMED_OUT,
    _Code.NOT_FOUND: FailureKind.MODEL_UNAVAILABLE,
    _Code.ALREADY_EXISTS: FailureKind.CONFLICT,
    _Code.PERMISSION_DENIED: FailureKind.CREDENTIALS,
    _Code.UNAUTHENTICATED: FailureKind.CREDENTIALS,
    _Code.RESOURCE_EXHAUSTED: FailureKind.OVERLOADED,
    _Code.FAILED_PRECONDITION: FailureKind.UNSUPPORTED,
    _Code.ABORTED: FailureKind.CONFLICT,
    _Code.OUT_OF_RANGE: FailureKind.CONTEXT_LENGTH,
    _Code.UNIMPLEMENTED: FailureKind.UNSUPPORTED,
    _Code.INTERNAL: FailureKind.INTERNAL,
    _Code.UNAVAILABLE: FailureKind.UNREACHABLE,
    _Code.DATA_LOSS: FailureKind.INTERNAL,
}

_SENTENCES: dict[FailureKind, str] = {
    FailureKind.UNREACHABLE: "cannot be reached",
    FailureKind.OVERLOADED: "has no room now",
    FailureKind.CONFLICT: "gave the call up",
    FailureKind.TIMED_OUT: "did not answer in time",
    FailureKind.STALLED: "fell silent in mid-stream",
    FailureKind.TRUNCATED: "ended without saying why",
    FailureKind.CRASHED: "lost its engine",
    FailureKind.INTERNAL: "failed by its own account",
    FailureKind.PROTOCOL: "does not speak the configured protocol; check `target` and `protocol`",
    FailureKind.CREDENTIALS: "does not accept our credentials; check `credentials` and `tls`",
    FailureKind.MODEL_UNAVAILABLE: "does not have the model; check `model`",
    FailureKind.UNKNOWN_MODEL: "does not have a model of the name that the request gives",
    FailureKind.UNSUPPORTED: "cannot do this; check `protocol` and `tasks`",
    FailureKind.NOT_PERMITTED: "may not do this",
    FailureKind.WRONG_PLACE: "is not known to be where the request may go; correct `location`, or its `serve.place`",
    FailureKind.PLACE_UNKNOWN: "was not told where it is, and the request may not go everywhere; set its `serve.place`",
    FailureKind.CONTEXT_LENGTH: "cannot take a request of this length",
    FailureKind.CONTENT_FILTER: "refuses this content",
    FailureKind.INVALID_REQUEST: "finds the request invalid",
    FailureKind.PREEMPTED: "stopped the call for another",
}

_OTHER_PROTOCOLS = {
    "certificate has expired": "has an expired TLS certificate; its server needs a new one",
    "certificate is not yet valid": "has a TLS certificate that is not valid yet; check the clocks",
    "CERTIFICATE_VERIFY_FAILED": "has a TLS certificate that our roots do not vouch for; check `target` and `tls`",
    "Hostname Verification Check failed": "has a certificate for another name; check `target` and `tls.server_name`",
    "is not in peer certificate": "has a certificate for another name; check `target` and `tls.server_name`",
    "WRONG_VERSION_NUMBER": "does not speak TLS, and plaintext is for loopback and unix sockets only",
    "missing selected ALPN property": "speaks TLS there, but no HTTP/2, which gRPC needs; check `target`",
    "Failed parsing HTTP/2": _SENTENCES[FailureKind.PROTOCOL],
    "http1.x server": _SENTENCES[FailureKind.PROTOCOL],
}
"""Signs in the library's text, from 1.71 to 1.85, of a connection that did not come to stand."""

_ALERT = "_ALERT_"
"""The sign in it of an alert by which the other side ended a TLS handshake."""

_CLOSED = ("Socket closed", "recvmsg:Connection reset by peer", "Unwrap failed", _ALERT)
"""Signs in it of a connection that the other side closed."""

_NO_HANDSHAKE = "Failed to create security handshaker"
"""The sign in it of files that TLS cannot use."""


_FAULTS = {
    "Connection refused": PathFault.REFUSED,
    "Network is unreachable": PathFault.NO_ROUTE,
    "DNS resolution failed": PathFault.NO_NAME,
}
"""Signs in the library's text of where the way is broken."""


CALL_ERRORS = (grpc.aio.AioRpcError, grpc.aio.BaseError, DecodeError, ValueError, ReportedFailure)
"""What a call can raise: a status, the library's own complaints, what a protocol cannot read or reads of a failure."""

Judge = Callable[[str, str], FailureKind | None]
"""A protocol's own reading of a status' name and text; ``None`` where it has none."""


def attempt_error(backend: str, error: Exception, judge: Judge) -> AttemptError:
    """What one of `CALL_ERRORS` means. The sentence is ours alone."""
    if isinstance(error, grpc.aio.AioRpcError):
        return _from_status(backend, error, judge)
    if isinstance(error, ReportedFailure):
        return AttemptError(error.kind, f"backend {backend!r} {error.sentence or _SENTENCES[error.kind]}")
    if isinstance(error, grpc.aio.BaseError):
        return failure(backend, FailureKind.INTERNAL)
    return failure(backend, FailureKind.PROTOCOL)


def failure(backend: str, kind: FailureKind) -> AttemptError:
    """The same, for what this side noticed by itself."""
    return AttemptError(kind, f"backend {backend!r} {_SENTENCES[kind]}")


def _from_status(backend: str, error: grpc.aio.AioRpcError, judge: Judge) -> AttemptError:
    trailing = _trailing(error)
    code = error.code()
    details = error.details() or ""
    named = _named_kind(trailing) or judge(code.name, details)
    kind, sentence = _inferred(code, details) if named is None else (named, _SENTENCES[named])
    fault = _fault(details) if named is None and code is _Code.UNAVAILABLE else None
    return AttemptError(
        kind, f"backend {backend!r} {sentence} ({code.name})", retry_after=_retry_after(trailing), fault=fault
    )


def _inferred(code: grpc.StatusCode, details: str) -> tuple[FailureKind, str]:
    kind = KIND_BY_CODE[code]
    if code is _Code.UNAVAILABLE:
        return _connection_fault(details)
    if code is _Code.RESOURCE_EXHAUSTED and "larger than max" in details:
        if "CLIENT:" in details:
            return FailureKind.PROTOCOL, "sent a message larger than this client takes"
        return FailureKind.CONTEXT_LENGTH, _SENTENCES[FailureKind.CONTEXT_LENGTH]
    if "http2 header with status" in details or "content-type" in details:
        return FailureKind.PROTOCOL, _SENTENCES[FailureKind.PROTOCOL]
    return kind, _SENTENCES[kind]


def _connection_fault(details: str) -> tuple[FailureKind, str]:
    """Tell apart why there is no connection. The texts are the library's own: no server has been heard yet.

    A certificate that cannot be trusted is another protocol rather than wrong credentials, because it goes away by
    itself where a captive portal answered in the server's name.
    """
    for sign, sentence in _OTHER_PROTOCOLS.items():
        if sign in details:
            return FailureKind.PROTOCOL, sentence
    if _NO_HANDSHAKE in details:
        sentence = "cannot be called by TLS: what `tls` names are no certificates, or not the key of the certificate"
        return FailureKind.CREDENTIALS, sentence
    if _ALERT in details:
        return FailureKind.PROTOCOL, "refuses our TLS handshake; check `target` and `tls`"
    if _closed_early(details):
        return FailureKind.UNREACHABLE, "closes connections at once; it may want `tls`, or a `tls.certificate` of ours"
    return FailureKind.UNREACHABLE, _SENTENCES[FailureKind.UNREACHABLE]


def _closed_early(details: str) -> bool:
    """Whether a connection was closed before gRPC was heard on it: for want of TLS, a certificate, or a server."""
    return "failed to connect" in details and any(sign in details for sign in _CLOSED)


def _fault(details: str) -> PathFault | None:
    """Where the way is broken, if the library's text says so. A server that says the same is believed at its cost."""
    if any(sign in details for sign in _OTHER_PROTOCOLS):
        return PathFault.INTERCEPTED
    if _closed_early(details):
        return PathFault.BROKEN
    return next((fault for sign, fault in _FAULTS.items() if sign in details), None)


def _trailing(error: grpc.aio.AioRpcError) -> dict[str, str | bytes]:
    metadata = error.trailing_metadata()
    if metadata is None:
        return {}
    # Key by key, because iterating means different things in different releases.
    return {key: metadata[key] for key in (FAILURE_KEY, PUSHBACK_KEY, DETAILS_KEY) if key in metadata}


def _named_kind(trailing: dict[str, str | bytes]) -> FailureKind | None:
    name = trailing.get(FAILURE_KEY)
    if name is None and (packed := _detail(trailing, "ErrorInfo")) is not None:
        info = _read(ErrorInfo, packed)
        name = info.reason.lower() if info is not None and info.domain == ERROR_DOMAIN else None
    try:
        return FailureKind(str(name))
    except ValueError:
        return None


def _retry_after(trailing: dict[str, str | bytes]) -> float | None:
    pushback = trailing.get(PUSHBACK_KEY)
    if pushback is None:
        return _retry_info(trailing)
    try:
        milliseconds = int(pushback)
    except ValueError:
        return math.inf  # gRPC's rule: what cannot be read means stop, as a negative number does
    return math.inf if milliseconds < 0 else milliseconds / 1000


def _retry_info(trailing: dict[str, str | bytes]) -> float | None:
    packed = _detail(trailing, "RetryInfo")
    if packed is None:
        return None
    info = _read(RetryInfo, packed)
    if info is None:
        return math.inf
    seconds = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return math.inf if seconds < 0 else seconds


def _detail(trailing: dict[str, str | bytes], name: str) -> bytes | None:
    """The google.rpc message of this name within the status' details; none where these cannot be read."""
    packed = trailing.get(DETAILS_KEY)
    status = _read(StatusDetails, packed) if isinstance(packed, bytes) else None
    details = () if status is None else status.details
    return next((each.value for each in details if each.type_url.endswith(f"/google.rpc.{name}")), None)


def _read(message_type: type[M], packed: bytes) -> M | None:
    try:
        return message_type.FromString(packed)
    except DecodeError:
        return None
