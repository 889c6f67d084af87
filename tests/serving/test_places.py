"""Content goes where it may: permitted places go with it, and where they must be proven, that is done before it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import TlsSettings
from edgewise.backends.grpc.connection import Line
from edgewise.core.content import EmbedInput
from edgewise.core.decision import RefusalCode
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.permit import Bounds
from edgewise.core.settings import FilePath
from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router import AsyncRouter, BackendError
from edgewise.router.config import loads

from .conftest import CALL, Connect, Scripted, Serve, collect, within

Certificate = tuple[FilePath, FilePath, FilePath]


def bound(*places: str, attested: bool = False) -> CallContext:
    return replace(within(5), bounds=Bounds(frozenset(places), attested))


async def test_a_server_at_another_place_refuses(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend, place="NL"))
    await collect(remote.generate(CALL, bound("DE", "NL")))
    for call in (collect(remote.generate(CALL, bound("DE"))), remote.embed(EmbedInput(("a",)), bound("site:nl", "DE"))):
        with pytest.raises(AttemptError, match="FAILED_PRECONDITION") as caught:
            await call
        assert caught.value.kind is FailureKind.WRONG_PLACE
    assert len(backend.seen) == 1


async def test_a_server_that_was_told_no_place_takes_only_what_may_go_anywhere(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend, place=""))
    with pytest.raises(AttemptError, match=r"`serve\.place`") as caught:
        await collect(remote.generate(CALL, bound("DE")))
    assert caught.value.kind is FailureKind.PLACE_UNKNOWN
    assert not backend.seen
    assert await collect(remote.generate(CALL, within(5)))


async def test_the_refusal_of_a_server_that_was_told_no_place_names_the_key(serve: Serve) -> None:
    server = await serve(Scripted("m"), place="")
    permitted = wire.PermittedPlaces(places=["DE"])
    request = wire.EmbedRequest(texts=["a"], call=wire.CallInfo(permitted=permitted)).SerializeToString()
    async with grpc.aio.insecure_channel(server.address) as channel:
        embed: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/edgewise.v1.ModelService/Embed")
        with pytest.raises(grpc.aio.AioRpcError, match=r"set `serve\.place`") as caught:
            await embed(request, timeout=5)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_server_that_was_told_no_place_proves_none(
    certificate: Certificate, serve: Serve, connect: Connect
) -> None:
    backend = Scripted("m")
    chain, key, roots = certificate
    server = await serve(backend, place="", listen="localhost:0", certificate=chain, key=key)
    remote = connect(server, tls=TlsSettings(roots))
    with pytest.raises(AttemptError) as caught:
        await collect(remote.generate(CALL, bound("DE", attested=True)))
    assert caught.value.kind is FailureKind.PLACE_UNKNOWN
    assert not backend.seen


class Place(grpc.GenericRpcHandler):
    """A service behind TLS that says it is at some place, and remembers which methods were called."""

    def __init__(self, place: str | None, model: str = "m") -> None:
        self.place = place
        self.model = model
        self.called: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = handler_call_details.method.rpartition("/")[2]
        self.called.append(method)
        if method == "Handshake" and self.place is not None:
            return grpc.unary_unary_rpc_method_handler(self._handshake)
        if method == "Generate":
            return grpc.unary_stream_rpc_method_handler(self._generate)
        return grpc.unary_unary_rpc_method_handler(self._unknown)

    async def _handshake(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if wire.HandshakeRequest.FromString(request).model not in ("", self.model):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return wire.HandshakeResponse(place=self.place or "").SerializeToString()

    async def _generate(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        finish = wire.Finish(reason=wire.FINISH_REASON_STOP)
        await context.write(wire.GenerateResponse(finish=finish, sequence=1).SerializeToString())

    async def _unknown(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")


@asynccontextmanager
async def standing(place: Place, certificate: Certificate, port: int = 0) -> AsyncIterator[str]:
    chain, key, _ = (Path(path).read_bytes() for path in certificate)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([place])
    port = server.add_secure_port(f"localhost:{port}", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)


class Target:
    def __init__(self, address: str) -> None:
        self.address = address


async def test_the_place_is_asked_before_content_is_sent_and_once(certificate: Certificate, connect: Connect) -> None:
    place = Place("site:praxis")
    async with standing(place, certificate) as address:
        remote = connect(Target(address), tls=TlsSettings(certificate[2]), model="m")
        for _ in range(2):
            await collect(remote.generate(CALL, bound("site:praxis", attested=True)))
    assert place.called == ["Handshake", "Generate", "Generate"]


async def test_without_need_nobody_asks(certificate: Certificate, connect: Connect) -> None:
    place = Place("site:praxis")
    async with standing(place, certificate) as address:
        remote = connect(Target(address), tls=TlsSettings(certificate[2]))
        await collect(remote.generate(CALL, bound("site:praxis")))
    assert place.called == ["Generate"]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (Place("US"), FailureKind.WRONG_PLACE),
        (Place(None), FailureKind.WRONG_PLACE),
        (Place("site:praxis", model="another"), FailureKind.MODEL_UNAVAILABLE),
    ],
    ids=["elsewhere", "no answer", "no model"],
)
async def test_who_is_not_what_it_should_be_gets_no_content(
    place: Place, kind: FailureKind, certificate: Certificate, connect: Connect
) -> None:
    async with standing(place, certificate) as address:
        remote = connect(Target(address), tls=TlsSettings(certificate[2]), model="m")
        with pytest.raises(AttemptError) as caught:
            await collect(remote.generate(CALL, bound("site:praxis", attested=True)))
        assert caught.value.kind is kind
        with pytest.raises(AttemptError):
            await remote.embed(EmbedInput(("a",)), bound("site:praxis", attested=True))
    assert set(place.called) == {"Handshake"}


async def test_a_place_that_only_public_certificates_vouch_for_is_not_proven(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend, place="NL"))
    with pytest.raises(AttemptError, match="does not prove where it is") as caught:
        await collect(remote.generate(CALL, bound("NL", attested=True)))
    assert caught.value.kind is FailureKind.WRONG_PLACE
    assert not backend.seen


async def test_a_new_connection_is_asked_again(certificate: Certificate, connect: Connect) -> None:
    """The channel connects anew by itself, and finds another server on the port."""
    before, after = Place("site:praxis"), Place("US")
    attested = bound("site:praxis", attested=True)
    async with standing(before, certificate) as address:
        remote = connect(Target(address), tls=TlsSettings(certificate[2]))
        await collect(remote.generate(CALL, attested))
    async with standing(after, certificate, int(address.rpartition(":")[2])):
        # The channel may have to find out first that the old connection is gone.
        kinds: list[FailureKind] = []
        while FailureKind.WRONG_PLACE not in kinds:
            with pytest.raises(AttemptError) as caught:
                await collect(remote.generate(CALL, attested))
            kinds.append(caught.value.kind)
        assert set(kinds) <= {FailureKind.WRONG_PLACE, FailureKind.UNREACHABLE}
    assert set(after.called) == {"Handshake"}


async def test_one_that_was_made_while_the_program_was_busy_is_asked_too(
    certificate: Certificate, connect: Connect
) -> None:
    """Before the event loop hears that the old connection is gone, a call finds another server on the port."""
    attested = bound("site:praxis", attested=True)
    before, after = ThreadedPlace("site:praxis", certificate), ThreadedPlace("US", certificate)
    address = before.start()
    try:
        remote = connect(Target(address), tls=TlsSettings(certificate[2]))
        await collect(remote.generate(CALL, attested))
        before.stop()
        after.start(address)
        keep_waiting_until_it_breaks(remote._connection.take())
        with pytest.raises(AttemptError):
            await collect(remote.generate(CALL, attested))
    finally:
        before.stop()
        after.stop()
    assert (before.called, after.called) == (["Handshake", "Generate"], ["Handshake"])


def keep_waiting_until_it_breaks(line: Line) -> None:
    """What a program does that works too long in its event loop."""
    until = time.monotonic() + 10.0
    while line.connected:
        assert time.monotonic() < until
        time.sleep(0.001)


class ThreadedPlace(grpc.GenericRpcHandler):
    """The same in threads of its own, so that it comes and goes while an event loop is kept waiting."""

    def __init__(self, place: str, certificate: Certificate) -> None:
        chain, key, _ = (Path(path).read_bytes() for path in certificate)
        self._credentials = grpc.ssl_server_credentials([(key, chain)])
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self], options=[("grpc.so_reuseport", 0)])
        self._place = place
        self.called: list[str] = []

    def start(self, address: str = "localhost:0") -> str:
        port = self._server.add_secure_port(address, self._credentials)
        self._server.start()
        return f"localhost:{port}"

    def stop(self) -> None:
        self._server.stop(0).wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = handler_call_details.method.rpartition("/")[2]
        self.called.append(method)
        if method == "Handshake":
            response = wire.HandshakeResponse(place=self._place).SerializeToString()
            return grpc.unary_unary_rpc_method_handler(lambda request, context: response)
        finish = wire.GenerateResponse(finish=wire.Finish(reason=wire.FINISH_REASON_STOP), sequence=1)
        return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([finish.SerializeToString()]))


CONFIGURATION = """
version: 1
backends:
  clinic:
    kind: grpc
    target: {target}
    tls: {{root_certificates: {roots}}}
    location: {{process_in: ["site:praxis"], store_in: [], operators: [DE], evidence: attested}}
policy:
  sites: {{praxis: {{in: DE}}}}
  data_classes:
    public: {{process_in: [any]}}
    health: {{process_in: ["site:praxis"], operators: [DE], evidence: attested}}
  default_data_class: health
  defaults: {{latency_budget: 5s, order: [quality]}}
"""


async def test_a_backend_at_another_place_than_configured_is_out_of_use(
    certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place("US")
    async with standing(place, certificate) as address:
        text = CONFIGURATION.format(target=address, roots=certificate[2])
        async with AsyncRouter(loads(text, tmp_path)) as router:
            with pytest.raises(BackendError, match="`location`"):
                await router.generate("My knee hurts.")
            plan = await router.plan("My knee hurts.", data_class="public")
            assert [refusal.code for refusal in plan.refusals] == [RefusalCode.QUARANTINED]
    assert place.called == ["Handshake"]
    assert "clinic" in caplog.text


NO_PLACE = """
version: 1
backends:
  gateway:
    kind: grpc
    target: {target}
    location: {{process_in: [NL], store_in: [], operators: [NL]}}
policy:
  data_classes:
    public: {{process_in: [any]}}
    personal: {{process_in: [NL]}}
  defaults: {{latency_budget: 5s, order: [quality]}}
"""


async def test_a_call_that_a_server_without_a_place_refused_leaves_it_in_use_for_what_may_go_anywhere(
    serve: Serve, tmp_path: Path
) -> None:
    server = await serve(Scripted("m"), place="")
    async with AsyncRouter(loads(NO_PLACE.format(target=server.address), tmp_path)) as router:
        for _ in range(2):
            with pytest.raises(BackendError, match=r"set its `serve\.place`"):
                await router.generate("My knee hurts.", data_class="personal")
            assert (await router.generate("Hello", data_class="public")).text == "hello there"
