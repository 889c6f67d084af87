"""Who may call: one of the configured tokens, as `authorization: Bearer …`."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Never, TypeVar

import grpc
import grpc.aio

from ...core.failure import AttemptError, FailureKind
from ...core.settings import Secret
from .refusals import refuse

_OPEN_TO_ALL = "/grpc.health.v1.Health/"
"""Probes carry no token, and learn only whether the server lives."""

_SCHEME = "bearer "

Q = TypeVar("Q")
R = TypeVar("R")


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses every call without one of the tokens. Comparing takes as long for a near miss as for a far one."""

    def __init__(self, tokens: Sequence[Secret]) -> None:
        self._tokens = [token.reveal().encode() for token in tokens]

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        details = handler_call_details
        if details.method.startswith(_OPEN_TO_ALL) or self._accepts(dict(details.invocation_metadata)):
            return await continuation(details)
        return grpc.unary_unary_rpc_method_handler(_refuse)

    def _accepts(self, metadata: dict[str, str | bytes]) -> bool:
        given = metadata.get("authorization", "")
        if not isinstance(given, str) or given[: len(_SCHEME)].lower() != _SCHEME:
            return False
        offered = given[len(_SCHEME) :].encode()
        # Every token is compared, whatever the others gave.
        return sum(hmac.compare_digest(offered, token) for token in self._tokens) > 0


async def _refuse(request: Q, context: grpc.aio.ServicerContext[Q, R]) -> Never:
    await refuse(context, AttemptError(FailureKind.CREDENTIALS, "give one of the server's tokens as a bearer token"))
