"""What the channel is set to: many addresses, certificates that rotate, compression, limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edgewise.backends import Backend
from edgewise.backends.contract.suite import outcome
from edgewise.backends.grpc import TlsSettings
from edgewise.backends.grpc.settings import Balancing, Compression, GrpcSettings, ProtocolName, check
from edgewise.core.content import GenerateInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ByteSize

from ..certificates import pem, serving
from .conftest import CALL, Handler, MakeBackend, Servers, collect, delta, finish, two_words, within
from .test_grpc_connections import tcp_server


@dataclass
class Addresses:
    """Servers on addresses of their own, which count who was asked."""

    servers: Servers
    asked: Counter[str] = field(default_factory=Counter)
    listening: list[str] = field(default_factory=list)

    async def add(self, host: str, answer: Handler = two_words) -> None:
        async def counted(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            self.asked[host] += 1
            await answer(request, context)

        self.listening.append(await self.servers.start(counted, listen=f"{host}:0"))

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(self.listening)


@pytest.fixture
def addresses(servers: Servers) -> Addresses:
    return Addresses(servers)


async def refuse(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, "sick")


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  # the library's own timers: there is no event to wait for
            await asyncio.sleep(0.02)


async def test_calls_are_spread_over_the_addresses_listed(addresses: Addresses, make_backend: MakeBackend) -> None:
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        await addresses.add(host)
    backend = make_backend(addresses.target)

    async def all_asked() -> bool:
        await collect(backend.generate(CALL, within(5)))
        return len(addresses.asked) == 3

    await until(all_asked)
    addresses.asked.clear()
    for _ in range(9):
        await collect(backend.generate(CALL, within(5)))
    assert sorted(addresses.asked.values()) == [3, 3, 3]


async def test_an_address_that_is_down_costs_no_call(addresses: Addresses, make_backend: MakeBackend) -> None:
    await addresses.add("127.0.0.2")
    addresses.listening.insert(0, "127.0.0.3:1")
    backend = make_backend(addresses.target)
    for _ in range(6):
        assert await collect(backend.generate(CALL, within(5)))
    assert addresses.asked == {"127.0.0.2": 6}


async def test_one_name_may_be_balanced_too(servers: Servers, make_backend: MakeBackend) -> None:
    port = (await servers.start()).rpartition(":")[2]
    for target in (f"dns:///localhost:{port}", f"localhost:{port}"):
        assert await collect(make_backend(target, balancing=Balancing.ROUND_ROBIN).generate(CALL, within(5)))
        assert await collect(make_backend(target).generate(CALL, within(5)))


async def test_an_address_that_does_not_serve_by_its_own_account_is_left_out(
    addresses: Addresses, make_backend: MakeBackend
) -> None:
    await addresses.add("127.0.0.1")
    sick = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, sick)
    await servicer.set("llm", health_pb2.HealthCheckResponse.NOT_SERVING)
    sick.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "edgewise.v1.ModelService", {"Generate": grpc.unary_stream_rpc_method_handler(two_words)}
            )
        ]
    )
    port = sick.add_insecure_port("127.0.0.2:0")
    await sick.start()
    addresses.listening.append(f"127.0.0.2:{port}")
    try:
        backend = make_backend(addresses.target, health_service="llm")
        for _ in range(6):
            assert await collect(backend.generate(CALL, within(5)))
        assert addresses.asked == {"127.0.0.1": 6}
    finally:
        await sick.stop(0)


async def test_an_address_whose_calls_fail_is_left_out_for_a_while(
    addresses: Addresses, make_backend: MakeBackend
) -> None:
    await addresses.add("127.0.0.1")
    await addresses.add("127.0.0.2", refuse)
    backend = make_backend(addresses.target)
    in_a_row = 0

    async def left_out() -> bool:
        nonlocal in_a_row
        kind = await outcome(collect(backend.generate(CALL, within(5))))
        assert kind in (None, FailureKind.INTERNAL)
        in_a_row = in_a_row + 1 if kind is None else 0
        return in_a_row >= 10

    await until(left_out)


async def test_one_sick_address_of_several_does_not_cost_the_channel(
    addresses: Addresses, make_backend: MakeBackend
) -> None:
    async def unavailable(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    await addresses.add("127.0.0.1")
    await addresses.add("127.0.0.2", unavailable)
    backend = make_backend(addresses.target)
    lines = set()
    while addresses.asked["127.0.0.2"] < 3:
        assert await outcome(collect(backend.generate(CALL, within(5)))) in (None, FailureKind.UNREACHABLE)
        lines.add(backend._connection.take())
    assert len(lines) == 1


def test_several_addresses_elsewhere_need_the_name_that_their_certificates_hold() -> None:
    target = "ipv4:192.0.2.1:443,192.0.2.2:443"
    assert [problem.path for problem in check(GrpcSettings(target))] == [("target",)]
    assert check(GrpcSettings(target, tls=TlsSettings(server_name="models.example"))) == []
    assert [problem.path for problem in check(GrpcSettings("ipv4:127.0.0.1:1,nonsense"))] == [("target",)]


def test_foreign_servers_are_pinged_as_rarely_as_they_want() -> None:
    assert GrpcSettings("localhost:1").ping_interval == 10.0
    for protocol in set(ProtocolName) - {ProtocolName.EDGEWISE}:
        assert GrpcSettings("localhost:1", protocol).ping_interval == 300.0


async def failure_of(backend: Backend, call: GenerateInput = CALL) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(call, within(5)))
    return caught.value


async def test_roots_that_are_replaced_hold_from_then_on(
    servers: Servers, make_backend: MakeBackend, tmp_path: Path
) -> None:
    before, after = trustme.CA(), trustme.CA()
    old = await servers.start(listen="localhost:0", credentials=serving(before))
    roots = pem(tmp_path / "roots.pem", before.cert_pem)
    backend = make_backend(old, tls=TlsSettings(root_certificates=roots))
    assert await collect(backend.generate(CALL, within(5)))
    pem(tmp_path / "roots.pem", after.cert_pem)

    async def refused() -> bool:
        try:
            await collect(backend.generate(CALL, within(5)))
        except AttemptError as error:
            return error.kind is FailureKind.PROTOCOL and "`tls`" in error.sentence
        return False

    await until(refused, 5.0)
    pem(tmp_path / "roots.pem", before.cert_pem)
    assert await collect(backend.generate(CALL, within(5)))


@pytest.mark.parametrize("compression", Compression)
async def test_requests_are_compressed_where_asked(
    servers: Servers, make_backend: MakeBackend, compression: Compression
) -> None:
    behind = await servers.start()
    sent = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = behind.split(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))

        async def forth() -> None:
            nonlocal sent
            while data := await reader.read(4096):
                sent += len(data)
                there_writer.write(data)

        async def back() -> None:
            while data := await there_reader.read(4096):
                writer.write(data)

        try:
            await asyncio.gather(forth(), back())
        finally:
            there_writer.close()

    async with tcp_server(relay) as target:
        backend = make_backend(target, compression=compression)
        assert await collect(backend.generate(GenerateInput((Message.user("word " * 4000),)), within(5)))
        await backend.stop()
    assert (sent > 20_000) is (compression is Compression.NONE)


async def test_messages_beyond_the_limit_are_refused_on_both_sides(servers: Servers, make_backend: MakeBackend) -> None:
    async def large(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.write(delta("word " * 1000))
        await context.write(finish())

    target = await servers.start(large)
    backend = make_backend(target, max_message=ByteSize(2048))
    failed = await failure_of(backend)
    assert failed.kind is FailureKind.PROTOCOL
    assert not failed.disposition.retry_here
    failed = await failure_of(backend, GenerateInput((Message.user("word " * 1000),)))
    assert failed.kind is FailureKind.CONTEXT_LENGTH
    assert await collect(make_backend(target).generate(CALL, within(5)))
