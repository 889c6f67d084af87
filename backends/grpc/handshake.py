"""Asking a service where it is, before it is sent anything that has to be somewhere."""

from __future__ import annotations

from ...core.failure import AttemptError, FailureKind
from ..backend import CallContext
from .call_metadata import CallMetadata
from .connection import Line
from .settings import GrpcSettings
from .status import CALL_ERRORS, attempt_error, failure
from .wire_protocol import WireProtocol


class Handshake:
    """One backend's handshakes: at most one on each connection, without content.

    Who answers is proven by certificates alone, so these must be the configuration's own. What the handshake adds is
    what a service so proven says of itself: a wrong target behind the right certificates is found before it is sent
    content. One that was told no place need not name one.
    """

    def __init__(self, backend: str, settings: GrpcSettings, protocol: WireProtocol, metadata: CallMetadata) -> None:
        self._backend = backend
        self._protocol = protocol
        self._metadata = metadata
        self._pinned = settings.tls is not None and settings.tls.root_certificates is not None
        # One of several addresses says nothing of the others, which their certificates alone have to prove.
        self._asks = bool(protocol.handshake_path) and not settings.balances

    async def prove(self, line: Line, context: CallContext, timeout: float | None) -> None:
        """Raise `AttemptError` unless the service at the end of ``line`` is where the call may go and has the model."""
        if not self._pinned:
            raise self._unproven()
        if not self._asks:
            return
        if line.place is None or not line.connected:
            line.place = await self._ask(line, context, timeout)
            line.forget_place_when_it_reconnects()
        places = context.bounds.places
        if line.place and places is not None and line.place not in places:
            raise failure(self._backend, FailureKind.WRONG_PLACE)

    async def _ask(self, line: Line, context: CallContext, timeout: float | None) -> str:
        request, path = self._protocol.encode_handshake(context), self._protocol.handshake_path
        call = line.unary(path)(request, timeout=timeout, metadata=self._metadata.of(path))
        line.calls.add(call)
        try:
            return self._protocol.decode_handshake(await call)
        except CALL_ERRORS as error:
            failed = attempt_error(self._backend, error, lambda code, details: None)
        finally:
            line.calls.discard(call)
            call.cancel()
        raise self._unproven() if failed.kind is FailureKind.UNSUPPORTED else failed

    def _unproven(self) -> AttemptError:
        sentence = f"backend {self._backend!r} does not prove where it is, which the request's data class asks for"
        return AttemptError(FailureKind.WRONG_PLACE, sentence)
