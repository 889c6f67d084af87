"""Connections that cannot stand, break, come back, or lead to something else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import trustme

from edgewise.backends.grpc import GrpcSettings, TlsSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.quiet_loop import quieten
from edgewise.core.answer import Finish
from edgewise.core.content import GenerateInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import FilePath, Seconds

from .conftest import CALL, MakeBackend, Servers, collect, delta, finish, within

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def tcp_server(talk: Talk) -> AsyncIterator[str]:
    """A server that accepts and then does as ``talk`` says; the target to reach it by."""
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


async def failure_of(backend: GrpcBackend, seconds: float) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(CALL, within(seconds)))
    return caught.value


async def test_nobody_there_is_known_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    target = await servers.start()
    await servers.stop()
    backend = make_backend(target)
    clock = asyncio.get_running_loop().time
    began = clock()
    assert (await failure_of(backend, 10)).kind is FailureKind.UNREACHABLE
    assert clock() - began < 1.0


async def test_a_server_that_is_back_is_used_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    target = await servers.start()
    backend = make_backend(target)
    assert await collect(backend.generate(CALL, within(5)))
    await servers.stop()
    for _ in range(4):  # long enough for the library to lose its patience
        assert (await failure_of(backend, 5)).kind is FailureKind.UNREACHABLE

    assert await servers.start(listen=target) == target
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await collect(backend.generate(CALL, within(5)))
    assert clock() - began < 1.0


async def test_a_broken_connection_does_not_take_other_calls_with_it(
    servers: Servers, make_backend: MakeBackend
) -> None:
    release = asyncio.Event()

    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        if b"break" in request:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        await context.write(delta("slow "))
        await release.wait()
        await context.write(finish())

    backend = make_backend(await servers.start(answer))
    slow = aiter(backend.generate(CALL, within(10)))
    await anext(slow)
    with pytest.raises(AttemptError):
        await collect(backend.generate(GenerateInput((Message.user("break"),)), within(5)))
    other = aiter(backend.generate(CALL, within(10)))
    await anext(other)
    release.set()
    assert isinstance(await anext(slow), Finish)
    assert isinstance(await anext(other), Finish)


async def test_a_server_that_accepts_and_is_silent_ends_after_the_connect_timeout(make_backend: MakeBackend) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with tcp_server(silent) as target:
        backend = make_backend(target, connect_timeout=Seconds(0.3))
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await failure_of(backend, 5)).kind is FailureKind.UNREACHABLE
        assert clock() - began < 1.0
        assert (await failure_of(backend, 0.2)).kind is FailureKind.TIMED_OUT


async def test_a_slow_link_gets_more_patience(servers: Servers, make_backend: MakeBackend) -> None:
    behind = await servers.start()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)  # the link's own latency, longer than the first patience
        host, port = behind.split(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                sink.write(data)
                await sink.drain()

        try:
            await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        finally:
            there_writer.close()

    async with tcp_server(slowly) as target:
        backend = make_backend(target, connect_timeout=Seconds(0.2))
        kinds = []
        for _ in range(4):
            try:
                await collect(backend.generate(CALL, within(5)))
            except AttemptError as error:
                kinds.append(error.kind)
            else:
                break
        else:
            pytest.fail("never got through")
        assert kinds
        assert set(kinds) == {FailureKind.UNREACHABLE}
        await backend.stop()


async def test_http_1_is_told_apart(make_backend: MakeBackend) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    async with tcp_server(http) as target:
        failed = await failure_of(make_backend(target), 3)
    assert failed.kind is FailureKind.PROTOCOL
    assert "`target`" in failed.sentence


async def test_garbage_ends_by_the_deadline(make_backend: MakeBackend) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01 SSH-2.0-whatever, this is no HTTP/2 at all\r\n" * 8)
        await writer.drain()
        await asyncio.Event().wait()

    async with tcp_server(garbage) as target:
        clock = asyncio.get_running_loop().time
        began = clock()
        failed = await failure_of(make_backend(target), 3)
        assert clock() - began < 3.1
    assert failed.kind is FailureKind.PROTOCOL


async def test_a_unix_socket_works(servers: Servers, make_backend: MakeBackend, tmp_path: Path) -> None:
    target = await servers.start(listen=f"unix:{tmp_path}/model.sock")
    assert await collect(make_backend(target).generate(CALL, within(5)))


async def test_proxies_in_the_environment_are_ignored(servers: Servers) -> None:
    calls: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.read(64))

    script = (
        "import asyncio, sys\n"
        "from edgewise.backends import CallContext\n"
        "from edgewise.backends.grpc import KIND, GrpcSettings\n"
        "from edgewise.core.content import GenerateInput, Message\n"
        "from edgewise.core.deadline import Deadline\n"
        "async def main():\n"
        "    backend = KIND.build('cloud', GrpcSettings(target=sys.argv[1]), {})\n"
        "    context = CallContext('r', Deadline.after(asyncio.get_running_loop().time(), 10))\n"
        "    async for _ in backend.generate(GenerateInput((Message.user('hello'),)), context): pass\n"
        "    await backend.stop()\n"
        "asyncio.run(main())\n"
    )
    target = await servers.start()
    async with tcp_server(proxy) as address:
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"), f"http://{address}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, target, env={**os.environ, **proxies, "no_proxy": "", "no_grpc_proxy": ""}
        )
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert calls == []


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(authority: trustme.CA) -> grpc.ServerCredentials:
    issued = authority.issue_cert("localhost", "model.example")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])


def write_roots(authority: trustme.CA, folder: Path) -> FilePath:
    path = folder / "roots.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return FilePath(str(path))


async def test_the_right_root_works(
    servers: Servers,
    make_backend: MakeBackend,
    authority: trustme.CA,
    tls_server: grpc.ServerCredentials,
    tmp_path: Path,
) -> None:
    target = await servers.start(listen="localhost:0", credentials=tls_server)
    tls = TlsSettings(root_certificates=write_roots(authority, tmp_path))
    assert await collect(make_backend(target, tls=tls).generate(CALL, within(5)))


async def test_a_server_name_may_differ_from_the_target(
    servers: Servers,
    make_backend: MakeBackend,
    authority: trustme.CA,
    tls_server: grpc.ServerCredentials,
    tmp_path: Path,
) -> None:
    target = await servers.start(credentials=tls_server)
    tls = TlsSettings(root_certificates=write_roots(authority, tmp_path), server_name="model.example")
    assert await collect(make_backend(target, tls=tls).generate(CALL, within(5)))


async def test_the_wrong_root_names_tls(
    servers: Servers, make_backend: MakeBackend, tls_server: grpc.ServerCredentials, tmp_path: Path
) -> None:
    target = await servers.start(listen="localhost:0", credentials=tls_server)
    for tls in (TlsSettings(root_certificates=write_roots(trustme.CA(), tmp_path)), TlsSettings()):
        failed = await failure_of(make_backend(target, tls=tls), 5)
        assert failed.kind is FailureKind.PROTOCOL
        assert "`tls`" in failed.sentence


async def test_the_wrong_name_names_the_server_name(
    servers: Servers,
    make_backend: MakeBackend,
    authority: trustme.CA,
    tls_server: grpc.ServerCredentials,
    tmp_path: Path,
) -> None:
    target = await servers.start(listen="localhost:0", credentials=tls_server)
    tls = TlsSettings(root_certificates=write_roots(authority, tmp_path), server_name="other.example")
    failed = await failure_of(make_backend(target, tls=tls), 5)
    assert failed.kind is FailureKind.PROTOCOL
    assert "`tls.server_name`" in failed.sentence


async def test_tls_to_a_server_without_it_says_so(
    servers: Servers, make_backend: MakeBackend, authority: trustme.CA, tmp_path: Path
) -> None:
    target = await servers.start(listen="localhost:0")
    tls = TlsSettings(root_certificates=write_roots(authority, tmp_path))
    failed = await failure_of(make_backend(target, tls=tls), 5)
    assert failed.kind is FailureKind.PROTOCOL
    assert "TLS" in failed.sentence


async def test_a_missing_root_file_is_a_typed_failure(make_backend: MakeBackend, tmp_path: Path) -> None:
    tls = TlsSettings(root_certificates=FilePath(str(tmp_path / "none.pem")))
    failed = await failure_of(make_backend("localhost:1", tls=tls), 5)
    assert failed.kind is FailureKind.CREDENTIALS
    assert "none.pem" in failed.sentence


async def test_several_loops_in_one_process_make_no_noise(servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    target = await servers.start()

    async def calls() -> int:
        backend = GrpcBackend("cloud", GrpcSettings(target=target))
        answers = [await collect(backend.generate(CALL, within(20))) for _ in range(100)]
        await backend.stop()
        return len(answers)

    quieten()  # the server's loop, as `edgewise serve` does
    with caplog.at_level(logging.DEBUG):
        counts = await asyncio.gather(*(asyncio.to_thread(asyncio.run, calls()) for _ in range(4)))
    assert counts == [100] * 4
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_describing_a_backend_imports_no_grpc() -> None:
    script = (
        "import sys\n"
        "from edgewise.backends.registry import find_kind\n"
        "kind = find_kind('grpc')\n"
        "kind.check(kind.settings(target='localhost:50051'))\n"
        "assert not {'grpc', 'google.protobuf', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


async def test_only_the_librarys_known_noise_is_kept_from_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class PollerCompletionQueue:  # of the older releases that make the noise
        def _handle_events(self) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

    def other() -> None:
        raise BlockingIOError(11, "something else")

    loop = asyncio.get_running_loop()
    quieten()
    quieten()
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_soon(PollerCompletionQueue()._handle_events)
        loop.call_soon(other)
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "something else" in str(record.exc_info[1])
