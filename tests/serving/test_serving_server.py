"""The server itself: who may call, where it may listen, what it tells of itself, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from edgewise.backends import HealthState
from edgewise.backends.grpc import TlsSettings
from edgewise.core.answer import Finish
from edgewise.core.content import EmbedInput
from edgewise.core.errors import ConfigurationError
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.problem import Severity
from edgewise.core.request import Task
from edgewise.core.settings import FilePath, Seconds, Secret
from edgewise.router.serving import ServeSettings, check

from .conftest import CALL, Connect, Scripted, Serve, collect, within


@pytest.mark.parametrize("given", [None, "wrong", "right-but-longer", ""])
async def test_without_the_token_nobody_is_answered(given: str | None, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    server = await serve(backend, tokens=(Secret("right"), Secret("other")))
    remote = connect(server, credentials=None if given is None else Secret(given))
    with pytest.raises(AttemptError) as streamed:
        await collect(remote.generate(CALL, within(5)))
    with pytest.raises(AttemptError) as answered:
        await remote.embed(EmbedInput(("a",)), within(5))
    assert streamed.value.kind is answered.value.kind is FailureKind.CREDENTIALS
    assert not backend.seen


@pytest.mark.parametrize("token", ["right", "other"])
async def test_any_of_the_tokens_will_do(token: str, serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m"), tokens=(Secret("right"), Secret("other")))
    assert await collect(connect(server, credentials=Secret(token)).generate(CALL, within(5)))


async def test_a_port_in_use_says_what_to_do(serve: Serve) -> None:
    server = await serve(Scripted("m"))
    with pytest.raises(ConfigurationError) as caught:
        await serve(Scripted("m"), listen=server.address)
    assert "already in use" in str(caught.value)
    assert "`serve.listen`" in str(caught.value)


async def test_a_unix_socket_in_use_is_not_taken_over(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = await serve(Scripted("m"), listen=f"unix:{tmp_path}/model.sock")
    with pytest.raises(ConfigurationError, match="in use"):
        await serve(Scripted("m"), listen=f"unix:{tmp_path}/model.sock")
    assert await collect(connect(server).generate(CALL, within(5)))


async def test_an_address_of_another_machine_cannot_be_had(
    serve: Serve, certificate: tuple[FilePath, FilePath, FilePath]
) -> None:
    chain, key, _ = certificate
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:50051 cannot be had"):
        await serve(Scripted("m"), listen="192.0.2.1:50051", certificate=chain, key=key)


async def test_others_are_not_served_in_plaintext(serve: Serve) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await serve(Scripted("m"), listen="0.0.0.0:0")
    (problem,) = caught.value.problems
    assert problem.path == ("serve", "listen")
    assert "`certificate`" in problem.mend


def test_plaintext_for_others_wants_to_be_said() -> None:
    (refused,) = check(ServeSettings(listen="0.0.0.0:50051"))
    assert refused.severity is Severity.ERROR
    assert "plaintext" in refused.mend
    (warned,) = check(ServeSettings(listen="0.0.0.0:50051", plaintext=True))
    assert warned.severity is Severity.WARNING


async def test_tls(serve: Serve, connect: Connect, certificate: tuple[FilePath, FilePath, FilePath]) -> None:
    chain, key, roots = certificate
    server = await serve(Scripted("m"), listen="localhost:0", certificate=chain, key=key)
    assert await collect(connect(server, tls=TlsSettings(roots)).generate(CALL, within(5)))


async def test_mutual_tls(serve: Serve, connect: Connect, certificate: tuple[FilePath, FilePath, FilePath]) -> None:
    chain, key, roots = certificate
    server = await serve(Scripted("m"), listen="localhost:0", certificate=chain, key=key, client_roots=roots)
    assert await collect(connect(server, tls=TlsSettings(roots, None, chain, key)).generate(CALL, within(5)))
    with pytest.raises(AttemptError):
        await collect(connect(server, tls=TlsSettings(roots)).generate(CALL, within(2)))


@pytest.fixture
async def channel(serve: Serve) -> AsyncIterator[grpc.aio.Channel]:
    """A bare channel to a server with one model that is ready and one that is not."""
    loading = Scripted("loading")
    loading.state = HealthState.LOADING
    server = await serve(Scripted("ready"), loading)
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel


@pytest.mark.parametrize(
    ("service", "serving"), [("", True), ("edgewise.v1.ModelService", True), ("ready", True), ("loading", False)]
)
async def test_health_by_the_standard_service(service: str, serving: bool, channel: grpc.aio.Channel) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    expected = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    assert answer.status == expected


async def test_health_of_an_unknown_model(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_backend(serve: Serve) -> None:
    backend = Scripted("m")
    backend.state = HealthState.LOADING
    server = await serve(backend)
    async with grpc.aio.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="m"), timeout=10)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        backend.state = HealthState.READY
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_health_needs_no_token(serve: Serve) -> None:
    server = await serve(Scripted("m"), tokens=(Secret("right"),))
    async with grpc.aio.insecure_channel(server.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_and_describes_the_service(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="edgewise.v1.ModelService")

    services, description = [answer async for answer in stub.ServerReflectionInfo(questions(), timeout=5)]
    names = {service.name for service in services.list_services_response.service}
    assert {"edgewise.v1.ModelService", "grpc.health.v1.Health"} <= names
    assert b"GenerateRequest" in b"".join(description.file_descriptor_response.file_descriptor_proto)


async def test_stopping_lets_running_calls_end_and_takes_no_more(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m", limit=2)
    backend.hold = asyncio.Event()
    server = await serve(backend)
    remote = connect(server)
    running = asyncio.create_task(collect(remote.generate(CALL, within(20))))
    await asyncio.wait_for(backend.started.wait(), 5)
    stopping = asyncio.create_task(server.stop())
    while True:  # until the server has begun to stop
        try:
            await connect(server, tasks=(Task.EMBED,)).embed(EmbedInput(("a",)), within(0.2))
        except AttemptError as error:
            if error.kind is FailureKind.UNREACHABLE:
                break
    backend.hold.set()
    assert isinstance((await running)[-1], Finish)
    await asyncio.wait_for(stopping, 5)
    await server.stop()


async def test_stopping_ends_what_will_not_end(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend, drain=Seconds(0.1))
    running = asyncio.create_task(collect(connect(server).generate(CALL, within(20))))
    await asyncio.wait_for(backend.started.wait(), 5)
    await asyncio.wait_for(server.stop(), 5)
    with pytest.raises(AttemptError):
        await running
    await asyncio.wait_for(backend.stopped.wait(), 1)


async def test_a_server_is_found_again_after_its_restart(serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m"))
    remote = connect(server)
    assert await collect(remote.generate(CALL, within(5)))
    await server.stop()
    with pytest.raises(AttemptError):
        await collect(remote.generate(CALL, within(5)))
    await serve(Scripted("m"), listen=server.address)
    assert await collect(remote.generate(CALL, within(1)))


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        (ServeSettings(listen="here"), "listen"),
        (ServeSettings(listen="https://example.org:50051"), "listen"),
        (ServeSettings(listen="0.0.0.0:50051"), "listen"),
        (ServeSettings(listen="[::]:50051"), "listen"),
        (ServeSettings(listen="gateway.example:50051"), "listen"),
        (ServeSettings(place="Netherlands"), "place"),
        (ServeSettings(max_waiting=-1), "max_waiting"),
        (ServeSettings(certificate=FilePath(__file__)), "certificate"),
        (ServeSettings(client_roots=FilePath("/no/such.pem")), "client_roots"),
    ],
)
def test_bad_settings_are_named(settings: ServeSettings, path: str) -> None:
    problems = check(settings)
    assert (path,) in [problem.path for problem in problems if problem.severity is Severity.ERROR]


@pytest.mark.parametrize("listen", ["127.0.0.1:50051", "localhost:0", "[::1]:50051", "unix:/run/model.sock"])
def test_good_settings_pass(listen: str) -> None:
    assert check(ServeSettings(listen=listen, place="site:praxis")) == []


def test_a_server_that_is_open_to_everybody_is_warned_of(certificate: tuple[FilePath, FilePath, FilePath]) -> None:
    chain, key, roots = certificate
    everybody = ServeSettings(listen="0.0.0.0:50051", certificate=chain, key=key)
    (problem,) = check(everybody)
    assert problem.severity is Severity.WARNING
    assert check(ServeSettings("0.0.0.0:50051", "", chain, key, roots)) == []
    assert check(ServeSettings("0.0.0.0:50051", "", chain, key, None, (Secret("t"),))) == []


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "grpc_health.py").write_text("raise ImportError('not here', name='grpc_health')")
    script = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from edgewise.core.errors import EdgewiseError\n"
        "import edgewise.router.serving\n"
        "assert 'grpc' not in sys.modules\n"
        "try:\n"
        "    import edgewise.router.serving.server\n"
        "except EdgewiseError as error:\n"
        "    assert \"pip install 'edgewise[serve]'\" in str(error), error\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=30)
