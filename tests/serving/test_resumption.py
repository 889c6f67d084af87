"""A stream whose connection is lost goes on: nothing twice, nothing lost, nothing computed again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from edgewise.backends import Capabilities
from edgewise.backends.grpc import TlsSettings, channel
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.core.answer import Delta, Finish
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.core.settings import FilePath, Seconds, Secret
from edgewise.router import AsyncRouter, Chunk
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend

from .conftest import CALL, Connect, Scripted, Serve, within
from .cutting_proxy import Cut, CuttingProxy

WORDS = tuple(f"{number} " for number in range(1, 9))
CONFIGURATION = """
version: 1
backends:
  far:
    kind: grpc
    target: {target}
    connect_timeout: 250ms
    keepalive: 1s
    location: {{process_in: [NL]}}
policy:
  data_classes:
    public: {{process_in: [any]}}
  defaults: {{latency_budget: 10s, order: [quality]}}
"""

RouterTo = Callable[[str], AsyncRouter]


@pytest.fixture
def router_to(tmp_path: Path) -> RouterTo:
    return lambda target: AsyncRouter(loads(CONFIGURATION.format(target=target), tmp_path))


def counting() -> ScriptedBackend:
    can = Capabilities(frozenset(Task), max_concurrency=4)
    return ScriptedBackend("m", Script(WORDS, first_after=0.0, every=0.004), capabilities=can)


CUTS = [Cut(after, into) for after in range(len(WORDS) + 1) for into in (0.0, 0.3, 0.9)]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut.after}+{cut.into}")
async def test_a_stream_is_whole_wherever_its_connection_is_cut(cut: Cut, serve: Serve, router_to: RouterTo) -> None:
    backend = counting()
    server = await serve(backend)
    async with CuttingProxy(server.address, cut).running() as proxy, router_to(proxy.address) as router:
        chunks: list[Chunk] = [chunk async for chunk in router.stream("Count!")]
    assert "".join(chunk.text for chunk in chunks) == "".join(WORDS)
    answer = chunks[-1].answer
    assert answer is not None
    assert answer.text == "".join(WORDS)
    assert answer.usage.output_tokens == len(WORDS)
    assert proxy.connections == 2, "the connection was not cut"
    assert len(backend.calls) == 1, "it was computed again"
    assert not any(chunk.seam for chunk in chunks)
    first, second = answer.decision.attempts
    # Before the first text there is no stream to go on with; a cut may swallow what was sent just before it.
    assert second.reason == ("retry" if first.first_token is None else "resume")
    assert cut.after or first.first_token is None


@pytest.mark.parametrize("cut", [Cut(3), Cut(3, 0.5), Cut(len(WORDS), 0.5)], ids=lambda cut: f"{cut.after}+{cut.into}")
async def test_so_is_an_answer_that_is_waited_for(cut: Cut, serve: Serve, router_to: RouterTo) -> None:
    backend = counting()
    server = await serve(backend)
    async with CuttingProxy(server.address, cut).running() as proxy, router_to(proxy.address) as router:
        answer = await router.generate("Count!")
    assert answer.text == "".join(WORDS)
    assert len(backend.calls) == 1
    assert [attempt.reason for attempt in answer.decision.attempts] == ["first choice", "resume"]


async def test_a_stream_may_be_cut_again_and_again(serve: Serve, router_to: RouterTo) -> None:
    backend = counting()
    server = await serve(backend)
    async with (
        CuttingProxy(server.address, Cut(3), Cut(2, 0.5)).running() as proxy,
        router_to(proxy.address) as router,
    ):
        text = "".join([chunk.text async for chunk in router.stream("Count!")])
    assert text == "".join(WORDS)
    assert proxy.connections == 3
    assert len(backend.calls) == 1


async def test_nobody_else_can_resume_a_stream(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend, tokens=(Secret("mine"), Secret("other")))
    context = within(10, stream="0123")
    events = connect(server, credentials=Secret("mine")).generate(CALL, context)
    assert isinstance(await anext(events), Delta)
    for credentials, stream in ((Secret("other"), "0123"), (Secret("mine"), "4567")):
        stranger = connect(server, credentials=credentials)
        with pytest.raises(AttemptError) as caught:
            await anext(stranger.resume(0, within(10, stream=stream)))
        assert caught.value.kind is FailureKind.CONFLICT
    own = connect(server, credentials=Secret("mine")).resume(0, within(10, stream="0123"))
    assert await anext(own) == Delta("hello ", 1)
    backend.hold.set()
    assert [type(event) async for event in own] == [Delta, Finish]
    await events.aclose()


async def test_a_connection_that_fell_silent_is_left_for_another(
    serve: Serve, router_to: RouterTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a phone changes its network: nobody says that the old connection is dead."""
    monkeypatch.setattr(channel, "_PING_TIMEOUT_MS", 300)
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend)
    async with CuttingProxy(server.address).running() as proxy, router_to(proxy.address) as router:
        stream = router.stream("Count!")
        text = (await anext(stream)).text
        proxy.silence_all()
        backend.hold.set()
        text += "".join([chunk.text async for chunk in stream])
    assert text == "hello there"
    assert len(backend.seen) == 1


async def test_a_lost_stream_is_worked_on_for_a_while_and_no_longer(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend, resume_within=Seconds(0.3))
    async with CuttingProxy(server.address).running() as proxy:
        events = connect(proxy, resumes=True).generate(CALL, within(20, stream="0123"))
        await anext(events)
        lost_at = asyncio.get_running_loop().time()
        proxy.cut_all()
        await asyncio.wait_for(backend.stopped.wait(), 5)
        worked_on = asyncio.get_running_loop().time() - lost_at
    assert worked_on >= 0.29
    with pytest.raises(AttemptError):
        await anext(events)


async def test_a_certificate_is_an_identity_too(
    serve: Serve,
    connect: Connect,
    certificate: tuple[FilePath, FilePath, FilePath],
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    chain, key, roots = certificate
    server = await serve(backend, listen="localhost:0", certificate=chain, key=key, client_roots=roots)

    def client(name: str) -> GrpcBackend:
        issued, pem = authority.issue_cert(name), tmp_path / f"{name}.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
        return connect(server, tls=TlsSettings(roots, None, FilePath(str(pem)), FilePath(str(pem))))

    events = client("ward.example").generate(CALL, within(10, stream="0123"))
    await anext(events)
    with pytest.raises(AttemptError) as caught:
        await anext(client("office.example").resume(0, within(10, stream="0123")))
    assert caught.value.kind is FailureKind.CONFLICT
    again = client("ward.example").resume(0, within(10, stream="0123"))
    assert await anext(again) == Delta("hello ", 1)
    await again.aclose()
    await events.aclose()


@pytest.mark.parametrize("leave", ["close", "stop"])
async def test_a_stream_that_is_not_wanted_stops_at_once(leave: str, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend, resume_within=Seconds(60.0)))
    events = remote.generate(CALL, within(60, stream="0123"))
    await anext(events)
    await asyncio.wait_for(backend.started.wait(), 5)
    await (events.aclose() if leave == "close" else remote.stop())
    await asyncio.wait_for(backend.stopped.wait(), 1)
    await events.aclose()


async def test_the_deadline_stops_a_stream_that_nobody_reads(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend, resume_within=Seconds(60.0))
    async with CuttingProxy(server.address).running() as proxy:
        events = connect(proxy).generate(CALL, within(2.0, stream="0123"))
        await anext(events)
        proxy.cut_all()
        await asyncio.wait_for(backend.stopped.wait(), 5)
    await events.aclose()


async def test_a_server_that_keeps_nothing_is_told_so(serve: Serve, router_to: RouterTo) -> None:
    """And nothing is kept against it: it answers the next request."""
    backend = counting()
    server = await serve(backend, resume_within=Seconds(0.0), remember=Seconds(0.0))
    async with CuttingProxy(server.address, Cut(3)).running() as proxy, router_to(proxy.address) as router:
        with pytest.raises(Exception, match="no other backend may continue it"):
            [chunk async for chunk in router.stream("Count!")]
        assert (await router.generate("Count!")).text == "".join(WORDS)


async def test_what_is_no_stream_stops_with_its_caller(serve: Serve, router_to: RouterTo) -> None:
    """Nobody could ask for it again by a name."""
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend)
    async with router_to(server.address) as router:
        asked = asyncio.create_task(router.embed(["a text"]))
        await asyncio.wait_for(backend.started.wait(), 5)
        asked.cancel()
        await asyncio.wait_for(backend.stopped.wait(), 2)
