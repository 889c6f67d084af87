"""Certificates that are missing, wrong, expired or for another place, and TLS where there is none: each is named."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from edgewise.backends import Backend, tls_diagnosis
from edgewise.backends.grpc import TlsSettings
from edgewise.core.decision import RefusalCode
from edgewise.core.failure import AttemptError, FailureKind, Quarantine
from edgewise.router import AsyncRouter, BackendError
from edgewise.router.config import loads

from ..certificates import future, past, pem, refusing, serving, showing
from .conftest import CALL, SECRET_WORDS, MakeBackend, Servers, collect, within

SECONDS = 5.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the cause is waited for."""
    monkeypatch.setattr(tls_diagnosis, "LONGEST_WAIT", SECONDS)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Vouches for servers."""
    return trustme.CA()


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    """Vouches for clients."""
    return trustme.CA()


Shown = Callable[..., TlsSettings]


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> Shown:
    """A client's settings, with a certificate of its own or without."""

    def tls(own: trustme.LeafCert | None = None) -> TlsSettings:
        roots = pem(tmp_path / "roots.pem", authority.cert_pem)
        if own is None:
            return TlsSettings(roots)
        certificate = pem(tmp_path / "own.pem", *own.cert_chain_pems)
        return TlsSettings(roots, certificate=certificate, key=pem(tmp_path / "own.key", own.private_key_pem))

    return tls


async def failure_of(backend: Backend) -> AttemptError:
    """How a call fails: before its deadline, and without content."""
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(CALL, within(SECONDS)))
    assert clock() - began < SECONDS
    assert SECRET_WORDS not in repr(caught.value)
    return caught.value


@pytest.mark.parametrize("server", ["grpc", "TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("none", "wants a certificate of this client, which has none; give `tls.certificate` and `tls.key`"),
        ("wrong", "`tls.certificate` one that it vouches for"),
        ("expired", "time is over"),
    ],
)
async def test_a_clients_own_certificate_is_what_is_wrong(
    server: str,
    own: str,
    said: str,
    authority: trustme.CA,
    clients: trustme.CA,
    servers: Servers,
    make_backend: MakeBackend,
    tls: Shown,
) -> None:
    shown = {"none": None, "wrong": trustme.CA().issue_cert("device"), "expired": past(clients, "device")}
    versions = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}

    async def refused(target: str) -> None:
        failed = await failure_of(make_backend(target, tls=tls(shown[own])))
        assert failed.kind is FailureKind.CREDENTIALS
        assert failed.disposition.quarantine is Quarantine.BACKEND
        assert not failed.disposition.retry_here
        assert said in failed.sentence

    if server == "grpc":
        await refused(await servers.start(listen="localhost:0", credentials=serving(authority, clients=clients)))
    else:
        with refusing(authority, clients, versions[server]) as target:
            await refused(target)


async def test_roots_with_remarks_in_any_language_are_read(
    authority: trustme.CA, clients: trustme.CA, make_backend: MakeBackend, tls: Shown
) -> None:
    settings = tls()
    roots = Path(str(settings.root_certificates))
    roots.write_text(f"# Wurzel für das Büro\n{roots.read_text()}", encoding="utf-8")
    with refusing(authority, clients, ssl.TLSVersion.TLSv1_2) as target:
        failed = await failure_of(make_backend(target, tls=settings))
    assert "wants a certificate" in failed.sentence


async def test_files_that_are_no_pair_are_named(
    authority: trustme.CA, clients: trustme.CA, servers: Servers, make_backend: MakeBackend, tls: Shown, tmp_path: Path
) -> None:
    target = await servers.start(listen="localhost:0", credentials=serving(authority, clients=clients))
    settings = tls(clients.issue_cert("device"))
    pem(tmp_path / "own.key", clients.issue_cert("device").private_key_pem)
    failed = await failure_of(make_backend(target, tls=settings))
    assert failed.kind is FailureKind.CREDENTIALS
    assert "not the key" in failed.sentence


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("expired", "an expired TLS certificate"),
        ("to come", "not valid yet"),
        ("another place's", "that our roots do not vouch for"),
        ("another name's", "`tls.server_name`"),
        ("plaintext", "does not speak TLS"),
    ],
)
async def test_a_servers_certificate_is_what_is_wrong(
    server: str, said: str, authority: trustme.CA, servers: Servers, make_backend: MakeBackend, tls: Shown
) -> None:
    issued = {
        "expired": past(authority, "localhost"),
        "to come": future(authority, "localhost"),
        "another place's": trustme.CA().issue_cert("localhost"),
        "another name's": authority.issue_cert("elsewhere.example"),
        "plaintext": None,
    }[server]
    credentials = None if issued is None else showing(issued)
    target = await servers.start(listen="localhost:0", credentials=credentials)
    failed = await failure_of(make_backend(target, tls=tls()))
    assert failed.kind is FailureKind.PROTOCOL
    assert not failed.disposition.retry_here
    assert said in failed.sentence


@pytest.mark.parametrize("mutual", [False, True])
async def test_plaintext_to_a_server_that_speaks_tls_is_named(
    mutual: bool, authority: trustme.CA, clients: trustme.CA, servers: Servers, make_backend: MakeBackend
) -> None:
    credentials = serving(authority, clients=clients if mutual else None)
    failed = await failure_of(make_backend(await servers.start(listen="localhost:0", credentials=credentials)))
    assert failed.kind is FailureKind.PROTOCOL
    assert not failed.disposition.retry_here
    assert "give `tls`" in failed.sentence


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@asynccontextmanager
async def listening(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("offers", [[], ["http/1.1"]], ids=["nothing", "HTTP/1.1"])
async def test_a_web_server_behind_tls_is_named(
    offers: list[str], authority: trustme.CA, make_backend: MakeBackend, tls: Shown
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if offers:
        context.set_alpn_protocols(offers)
    async with listening(lambda reader, writer: None, context) as target:
        failed = await failure_of(make_backend(target, tls=tls()))
    assert failed.kind is FailureKind.PROTOCOL
    assert "no HTTP/2" in failed.sentence


@pytest.mark.parametrize("secure", [False, True])
async def test_a_server_that_closes_at_once_may_only_be_dying(
    secure: bool, make_backend: MakeBackend, tls: Shown
) -> None:
    async with listening(lambda reader, writer: writer.transport.abort()) as target:
        failed = await failure_of(make_backend(target, tls=tls() if secure else None))
    assert failed.kind is FailureKind.UNREACHABLE
    assert "`tls`" in failed.sentence


async def test_looking_for_the_cause_ends_before_the_deadline(make_backend: MakeBackend, tls: Shown) -> None:
    writers: list[asyncio.StreamWriter] = []

    def close_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if len(writers) == 1:
            writer.close()

    clock = asyncio.get_running_loop().time
    async with listening(close_the_first) as target:
        began = clock()
        with pytest.raises(AttemptError) as caught:
            await collect(make_backend(target, tls=tls()).generate(CALL, within(0.6)))
        assert clock() - began < 0.6
        assert caught.value.kind is FailureKind.UNREACHABLE
        assert len(writers) == 2
        for writer in writers:
            writer.close()


CONFIGURATION = """
version: 1
backends:
  far:
    kind: grpc
    target: {target}
    tls: {{root_certificates: roots.pem, certificate: own.pem, key: own.key}}
    location: {{process_in: [NL]}}
policy:
  data_classes:
    public: {{process_in: [any]}}
  defaults: {{latency_budget: 5s, order: [quality]}}
"""


async def test_a_backend_out_of_use_for_its_certificate_is_back_once_that_is_replaced(
    authority: trustme.CA, clients: trustme.CA, servers: Servers, tls: Shown, tmp_path: Path
) -> None:
    target = await servers.start(listen="localhost:0", credentials=serving(authority, clients=clients))
    tls(past(clients, "device"))
    async with AsyncRouter(loads(CONFIGURATION.format(target=target), tmp_path)) as router:
        with pytest.raises(BackendError, match="time is over") as caught:
            await router.generate("Hello")
        assert caught.value.decision is not None
        assert len(caught.value.decision.attempts) == 1
        (refusal,) = (await router.plan("Hello")).refusals
        assert refusal.code is RefusalCode.QUARANTINED
        tls(clients.issue_cert("device"))
        assert (await router.generate("Hello")).text == "hello there"
