"""From what happened to gRPC's status: the inverse of the table in ``backends/grpc/status.py``."""

from __future__ import annotations

import logging
import math
from typing import Never, TypeVar

import grpc
import grpc.aio

from ...backends.grpc.status import DETAILS_KEY, ERROR_DOMAIN, FAILURE_KEY, PUSHBACK_KEY
from ...core.failure import AttemptError, FailureKind
from ...protos.v1.status_details_pb2 import ErrorInfo, RetryInfo, StatusDetail, StatusDetails

_TYPES = "type.googleapis.com/google.rpc."

_log = logging.getLogger(__name__)

_Code = grpc.StatusCode

Q = TypeVar("Q")
R = TypeVar("R")

CODE_BY_KIND: dict[FailureKind, grpc.StatusCode] = {
    FailureKind.UNREACHABLE: _Code.UNAVAILABLE,
    FailureKind.OVERLOADED: _Code.RESOURCE_EXHAUSTED,
    FailureKind.CONFLICT: _Code.ABORTED,
    FailureKind.TIMED_OUT: _Code.DEADLINE_EXCEEDED,
    FailureKind.STALLED: _Code.INTERNAL,
    FailureKind.TRUNCATED: _Code.INTERNAL,
    FailureKind.CRASHED: _Code.INTERNAL,
    FailureKind.INTERNAL: _Code.INTERNAL,
    FailureKind.PROTOCOL: _Code.INTERNAL,
    FailureKind.CREDENTIALS: _Code.UNAUTHENTICATED,
    FailureKind.MODEL_UNAVAILABLE: _Code.NOT_FOUND,
    FailureKind.UNKNOWN_MODEL: _Code.NOT_FOUND,
    FailureKind.UNSUPPORTED: _Code.UNIMPLEMENTED,
    FailureKind.NOT_PERMITTED: _Code.PERMISSION_DENIED,
    FailureKind.WRONG_PLACE: _Code.FAILED_PRECONDITION,
    FailureKind.PLACE_UNKNOWN: _Code.FAILED_PRECONDITION,
    FailureKind.CONTEXT_LENGTH: _Code.OUT_OF_RANGE,
    FailureKind.CONTENT_FILTER: _Code.FAILED_PRECONDITION,
    FailureKind.INVALID_REQUEST: _Code.INVALID_ARGUMENT,
    FailureKind.PREEMPTED: _Code.ABORTED,
}


def told(error: Exception) -> AttemptError:
    """What is told of a failure. Whatever a backend raises against its contract may quote content, so its type alone is
    logged.
    """
    if isinstance(error, AttemptError):
        return error
    _log.error("a served backend broke its contract by a %s", type(error).__name__)
    return AttemptError(FailureKind.INTERNAL, "the model failed in an unforeseen way")


async def refuse(context: grpc.aio.ServicerContext[Q, R], failed: AttemptError) -> Never:
    """End a call with a failure's status. Its kind goes along by name; its sentence holds no content."""
    code = CODE_BY_KIND[failed.kind]
    trailing: list[tuple[str, str | bytes]] = [
        (FAILURE_KEY, failed.kind.value),
        (DETAILS_KEY, _details(code, failed).SerializeToString()),
    ]
    if failed.retry_after is not None:
        never = math.isinf(failed.retry_after)
        trailing.append((PUSHBACK_KEY, "-1" if never else str(math.ceil(failed.retry_after * 1000))))
    await context.abort(code, failed.sentence, tuple(trailing))


def _details(code: grpc.StatusCode, failed: AttemptError) -> StatusDetails:
    """The same once more as a google.rpc.Status, for whoever reads that."""
    info = ErrorInfo(reason=failed.kind.name, domain=ERROR_DOMAIN)
    details = [StatusDetail(type_url=_TYPES + "ErrorInfo", value=info.SerializeToString())]
    if failed.retry_after is not None and math.isfinite(failed.retry_after):
        seconds, rest = divmod(failed.retry_after, 1.0)
        retry = RetryInfo(retry_delay=RetryInfo.Delay(seconds=int(seconds), nanos=int(rest * 1e9)))
        details.append(StatusDetail(type_url=_TYPES + "RetryInfo", value=retry.SerializeToString()))
    return StatusDetails(code=code.value[0], message=failed.sentence, details=details)
