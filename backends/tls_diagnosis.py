"""Why a service closes connections before they stand: one more handshake with it, whose steps can be seen.

Clients' libraries say no more than that the socket was closed. In TLS 1.2 a server says in the clear that it wants a
certificate of its client, and judges that before the handshake ends; where it speaks TLS 1.3 alone, it may say so by an
alert. Nothing but the handshake is sent.

The time that a failed attempt has left is its fallback's: it waits a moment, and the handshake goes on beside. What
comes of it is kept for a while, for every attempt that fails alike.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..core.failure import AttemptError, FailureKind, PathFault
from .endpoint import Endpoint
from .file_version import WatchedFiles
from .grpc.settings import TlsSettings

LONGEST_WAIT = 0.25
"""Seconds for which a failed attempt waits for the cause."""
_KEPT = 10.0
"""Seconds for which a cause that was found, or that none was, holds."""

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


@dataclass(frozen=True, slots=True)
class _Cause:
    """What the handshake showed."""

    kind: FailureKind
    sentence: str


class TlsDiagnosis:
    """Why one backend's service closes connections before they stand.

    ``trusting`` makes a context that trusts whom the backend's connections trust, and has its certificate. ``tls`` is
    ``None`` where it calls in plaintext; ``mend`` says what to write where the service wants TLS after all. A handshake
    takes ``longest`` seconds at most.
    """

    def __init__(
        self,
        backend: str,
        endpoint: Endpoint,
        tls: TlsSettings | None,
        trusting: Callable[[TlsSettings], ssl.SSLContext],
        *,
        mend: str,
        longest: float,
    ) -> None:
        self._backend = backend
        self._endpoint = endpoint
        self._tls = tls
        self._trusting = trusting
        self._mend = mend
        self._longest = longest
        shown = tls or TlsSettings()
        self._files = WatchedFiles((shown.root_certificates, shown.certificate, shown.key))
        self._looking: asyncio.Task[_Cause | None] | None = None
        self._holds_until = -math.inf

    async def of(self, failed: AttemptError, seconds_left: float) -> AttemptError:
        """The same failure, or why a connection was closed, if its handshake shows that soon or has shown it lately."""
        if failed.fault is not PathFault.BROKEN:
            return failed
        looking = self._look()
        await asyncio.wait({looking}, timeout=max(0.0, min(LONGEST_WAIT, seconds_left / 2)))
        cause = looking.result() if looking.done() and not looking.cancelled() else None
        return failed if cause is None else AttemptError(cause.kind, cause.sentence)

    async def close(self) -> None:
        """End a handshake that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _look(self) -> asyncio.Task[_Cause | None]:
        loop = asyncio.get_running_loop()
        looking = self._looking
        if looking is None or (looking.done() and (loop.time() >= self._holds_until or self._files.replaced())):
            self._files.read()
            looking = self._looking = loop.create_task(self._cause())
        return looking

    async def _cause(self) -> _Cause | None:
        try:
            async with asyncio.timeout(self._longest):
                return await (self._called_in_plaintext() if self._tls is None else self._refused(self._tls))
        except AttemptError as error:  # a file that cannot be used
            return _Cause(error.kind, error.sentence)
        except (OSError, TimeoutError, ValueError):  # ValueError: a host that can be no name
            return None
        finally:
            self._holds_until = asyncio.get_running_loop().time() + _KEPT

    async def _called_in_plaintext(self) -> _Cause | None:
        seen = await _shake_hands(self._endpoint, _unverified(), None)
        if seen.heard[:1] not in (bytes([_ALERT]), bytes([_HANDSHAKE])):
            return None
        sentence = f"backend {self._backend!r} speaks TLS, and is called in plaintext; {self._mend}"
        return _Cause(FailureKind.PROTOCOL, sentence)

    async def _refused(self, tls: TlsSettings) -> _Cause | None:
        # In a thread, because to read every public root takes some 40 ms.
        context = await asyncio.to_thread(self._trusting, tls)
        for version in _VERSIONS:
            context.maximum_version = version
            seen = await _shake_hands(self._endpoint, context, tls.server_name or self._endpoint.name)
            if seen.certificate_refused:
                refusal = await asyncio.to_thread(_refusal, tls)
                return _Cause(FailureKind.CREDENTIALS, f"backend {self._backend!r} {refusal}")
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
