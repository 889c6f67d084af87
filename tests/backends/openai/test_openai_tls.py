"""Encrypted connections: whose certificates are taken, and what is said of those that are not."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from edgewise.backends import tls_diagnosis
from edgewise.backends.contract.suite import outcome
from edgewise.backends.grpc import TlsSettings
from edgewise.core.failure import FailureKind
from edgewise.core.settings import FilePath

from ..certificates import past, pem, refusing
from .conftest import (
    CALL,
    HELLO,
    MakeBackend,
    Servers,
    collect,
    failure_of,
    stream,
    within,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls_is_held_to_its_roots_and_its_name(
    servers: Servers, make_backend: MakeBackend, authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("model.example").configure_cert(context)
    url = await servers.start(stream(*HELLO), context)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    ours = TlsSettings(root_certificates=FilePath(str(roots)), server_name="model.example")
    assert await collect(make_backend(url, tls=ours).generate(CALL, within(5)))
    for wrong in (None, replace(ours, server_name="other.example"), replace(ours, root_certificates=None)):
        failed = await failure_of(make_backend(url, tls=wrong))
        assert failed.kind is FailureKind.PROTOCOL
        assert "`tls`" in failed.sentence


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("own", [None, "expired"])
async def test_a_clients_own_certificate_is_named(
    own: str | None,
    version: ssl.TLSVersion,
    make_backend: MakeBackend,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_diagnosis, "LONGEST_WAIT", 5.0)  # however busy the machine is
    clients = trustme.CA()
    tls = TlsSettings(pem(tmp_path / "roots.pem", authority.cert_pem))
    if own is not None:
        issued = past(clients, "device")
        certificate = pem(tmp_path / "own.pem", *issued.cert_chain_pems)
        tls = replace(tls, certificate=certificate, key=pem(tmp_path / "own.key", issued.private_key_pem))
    with refusing(authority, clients, version) as target:
        failed = await failure_of(make_backend(f"https://{target}/v1", tls=tls))
        plain = await failure_of(make_backend(f"http://{target}/v1"))
    assert failed.kind is FailureKind.CREDENTIALS
    assert ("time is over" if own else "wants a certificate") in failed.sentence
    assert plain.kind is FailureKind.PROTOCOL
    assert "write `https:`" in plain.sentence


async def test_a_certificate_that_a_server_took_before_and_takes_no_more_is_named(
    servers: Servers, make_backend: MakeBackend, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_diagnosis, "LONGEST_WAIT", 5.0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url = (await servers.start(stream(*HELLO), context)).replace("127.0.0.1", "localhost")
    backend = make_backend(url, tls=TlsSettings(pem(tmp_path / "roots.pem", authority.cert_pem)))
    await collect(backend.generate(CALL, within(5)))
    context.verify_mode = ssl.CERT_REQUIRED
    failed = await failure_of(backend)
    assert failed.kind is FailureKind.CREDENTIALS
    assert "wants a certificate" in failed.sentence


async def test_certificates_that_are_replaced_hold_from_then_on(
    servers: Servers, make_backend: MakeBackend, authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url = (await servers.start(stream(*HELLO), context)).replace("127.0.0.1", "localhost")
    tls = TlsSettings(pem(tmp_path / "roots.pem", trustme.CA().cert_pem))
    backend = make_backend(url, tls=tls)
    assert (await failure_of(backend)).kind is FailureKind.PROTOCOL
    assert not backend.is_mended(FailureKind.CREDENTIALS)
    pem(tmp_path / "roots.pem", authority.cert_pem)
    assert backend.is_mended(FailureKind.CREDENTIALS)
    async with asyncio.timeout(5):
        while await outcome(collect(backend.generate(CALL, within(5)))) is not None:  # noqa: ASYNC110  # nothing tells of a look
            await asyncio.sleep(0.05)
