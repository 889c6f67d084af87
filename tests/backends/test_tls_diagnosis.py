"""Looking for the cause of a closed connection costs the request next to nothing."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable

import pytest

from edgewise.backends import tls_diagnosis
from edgewise.backends.endpoint import Endpoint
from edgewise.backends.grpc import TlsSettings
from edgewise.backends.tls_diagnosis import TlsDiagnosis
from edgewise.core.failure import AttemptError, FailureKind, PathFault

BROKEN = AttemptError(FailureKind.UNREACHABLE, "it broke", fault=PathFault.BROKEN)
LONG = 60.0


def diagnosis(
    port: int, tls: TlsSettings | None, trusting: Callable[[TlsSettings], ssl.SSLContext] | None = None
) -> TlsDiagnosis:
    trusting = trusting or (lambda tls: ssl.create_default_context())
    return TlsDiagnosis("far", Endpoint("127.0.0.1", port), tls, trusting, mend="give `tls`", longest=LONG)


async def test_a_silent_service_is_waited_for_a_moment_alone_and_what_it_says_later_is_known_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_diagnosis, "LONGEST_WAIT", 0.01)
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: writers.put_nowait(writer), "127.0.0.1", 0)
    looking = diagnosis(server.sockets[0].getsockname()[1], None)
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await looking.of(BROKEN, LONG) is BROKEN
            writer = await writers.get()
            writer.write(bytes([21, 3, 3, 0, 2, 2, 40]))  # an alert: it speaks TLS
            while (found := await looking.of(BROKEN, LONG)) is BROKEN:
                pass
        assert found.kind is FailureKind.PROTOCOL
        assert "give `tls`" in found.sentence
        assert writers.empty()  # one handshake for all of them
        writer.close()
    finally:
        await looking.close()
        server.close()


async def test_the_program_goes_on_while_certificates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_diagnosis, "LONGEST_WAIT", 5.0)
    went_on, seen = threading.Event(), []

    def read(tls: TlsSettings) -> ssl.SSLContext:
        seen.append(went_on.wait(5))
        return ssl.create_default_context()

    server = await asyncio.start_server(lambda reader, writer: writer.transport.abort(), "127.0.0.1", 0)
    looking = diagnosis(server.sockets[0].getsockname()[1], TlsSettings(), read)
    try:
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(went_on.set))
        assert await looking.of(BROKEN, LONG) is BROKEN
        assert seen == [True]
    finally:
        await looking.close()
        server.close()
