"""Why a service closes connections before they stand: one more handshake with it, whose steps can be seen.

Clients' libraries say no more than that the socket was closed. In TLS 1.2 a server says in the clear that it wants a
certificate of its client, and judges that before the handshake ends; where it speaks TLS 1.3 alone, it may say so by an
alert. Nothing but the handshake is sent.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..core.failure import AttemptError, FailureKind, PathFault
from .endpoint import Endpoint
from .grpc.settings import TlsSettings

_ALERT, _HANDSHAKE = 21, 22
"""Types of records (RFC 5246, 6.2.1)."""
_CERTIFICATE_REQUEST, _SERVER_HELLO_DONE = 13, 14
"""Types of handshake messages (RFC 5246, 7.4)."""

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_OUT_OF_DATE = {9, 10}
"""OpenSSL's codes for certificates that are not valid yet, or not any more."""

_WANTS_ONE = "wants a certificate of this client, which has none; give `tls.certificate` and `tls.key`"
_NOT_THIS_ONE = "does not take this client's certificate: is `tls.certificate` one that it vouches for?"
_NOT_NOW = (
    "does not take this client's certificate, whose time is over or has not come; replace `tls.certificate`, or set "
    "this device's clock"
)


class TlsDiagnosis:
    """Why one backend's service closes connections before they stand.

    ``trusting`` makes a context that trusts whom the backend's connections trust, and has its certificate. ``tls`` is
    ``None`` where it calls in plaintext; ``mend`` says what to write where the service wants TLS after all.
    """

    def __init__(
        self,
        backend: str,
        endpoint: Endpoint,
        tls: TlsSettings | None,
        trusting: Callable[[TlsSettings], ssl.SSLContext],
        *,
        mend: str,
    ) -> None:
        self._backend = backend
        self._endpoint = endpoint
        self._tls = tls
        self._trusting = trusting
        self._mend = mend

    async def of(self, failed: AttemptError, patience: float) -> AttemptError:
        """The same failure, or why a connection was closed, where its handshake shows that within so many seconds."""
        if failed.fault is not PathFault.BROKEN:
            return failed
        try:
            async with asyncio.timeout(patience):
                found = await (self._called_in_plaintext() if self._tls is None else self._refused(self._tls))
        except (OSError, TimeoutError, ValueError):  # ValueError: a host that can be no name
            return failed
        return failed if found is None else found

    async def _called_in_plaintext(self) -> AttemptError | None:
        seen = await _shake_hands(self._endpoint, _unverified(), None)
        if seen.heard[:1] not in (bytes([_ALERT]), bytes([_HANDSHAKE])):
            return None
        sentence = f"backend {self._backend!r} speaks TLS, and is called in plaintext; {self._mend}"
        return AttemptError(FailureKind.PROTOCOL, sentence)

    async def _refused(self, tls: TlsSettings) -> AttemptError | None:
        for version in _VERSIONS:
            context = self._trusting(tls)
            context.maximum_version = version
            seen = await _shake_hands(self._endpoint, context, tls.server_name or self._endpoint.name)
            if seen.certificate_refused:
                return AttemptError(FailureKind.CREDENTIALS, f"backend {self._backend!r} {_refusal(tls)}")
            if "PROTOCOL_VERSION" not in seen.alert:
                return None
        return None


def _refusal(tls: TlsSettings) -> str:
    if tls.certificate is None:
        return _WANTS_ONE
    return _NOT_NOW if _is_out_of_date(tls.certificate, tls.key) else _NOT_THIS_ONE


@dataclass(slots=True)
class _Seen:
    """What came of a handshake: the bytes heard until it ended, and the alert or error by which it did."""

    heard: bytes = b""
    stands: bool = False
    alert: str = ""

    @property
    def certificate_refused(self) -> bool:
        """Whether it ended for our certificate: by an alert about it, or where the server had to judge it."""
        if "ALERT" in self.alert and ("CERTIFICATE" in self.alert or "UNKNOWN_CA" in self.alert):
            return True
        ended_by_server = not self.stands and (not self.alert or "ALERT" in self.alert)
        return ended_by_server and {_CERTIFICATE_REQUEST, _SERVER_HELLO_DONE} <= _messages(self.heard)


def _messages(heard: bytes) -> set[int]:
    """The types of the handshake messages that a TLS 1.2 server has sent in the clear."""
    clear, at = b"", 0
    while heard[at : at + 1] == bytes([_HANDSHAKE]):
        length = int.from_bytes(heard[at + 3 : at + 5])
        clear += heard[at + 5 : at + 5 + length]
        at += 5 + length
    types, at = set(), 0
    while at + 4 <= len(clear):
        types.add(clear[at])
        at += 4 + int.from_bytes(clear[at + 1 : at + 4])
    return types


async def _shake_hands(endpoint: Endpoint, context: ssl.SSLContext, name: str | None) -> _Seen:
    if endpoint.port is None:
        reader, writer = await asyncio.open_unix_connection(endpoint.host)
    else:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    incoming, outgoing, seen = ssl.MemoryBIO(), ssl.MemoryBIO(), _Seen()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        while True:
            try:
                if not seen.stands:
                    tls.do_handshake()
                    seen.stands = True
                if context.maximum_version is ssl.TLSVersion.TLSv1_2 or tls.read(1):
                    return seen
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                seen.alert = error.reason or "no reason"
                return seen
            writer.write(outgoing.read())
            data = await reader.read(65536)
            if not data:
                return seen
            seen.heard += data
            incoming.write(data)
    except ConnectionError:
        return seen
    finally:
        writer.transport.abort()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_out_of_date(certificate: str, key: str | None) -> bool:
    """Whether the time of our own certificate is over or has not come, found by showing it to ourselves."""
    judge = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    judge.verify_mode = ssl.CERT_REQUIRED
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    judge.load_verify_locations(certificate)
    shown = _unverified()
    for context in (judge, shown):
        context.load_cert_chain(certificate, key, password="")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = shown.wrap_bio(back, there), judge.wrap_bio(there, back, server_side=True)
    try:
        for side in (client, server) * 2:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_code in _OUT_OF_DATE
    except ssl.SSLError:
        return False
    return False
