"""Streams over a target of several addresses: each goes on at the server that has it, and stops there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewise.backends.grpc import TlsSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import Balancing, GrpcSettings
from edgewise.core.answer import Delta, Finish
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import FilePath, Seconds
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.router.serving.server import ModelServer
from edgewise.testing import ScriptedBackend

from .conftest import CALL, Connect, Scripted, Serve, within
from .cutting_proxy import Cut, CuttingProxy
from .test_resumption import CONFIGURATION, WORDS, counting


@dataclass
class Fleet:
    """Two servers, each with a model and behind a wire of its own."""

    models: list[ScriptedBackend]
    servers: list[ModelServer]
    wires: list[CuttingProxy]

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(wire.address for wire in self.wires)

    @property
    def asked(self) -> list[int]:
        """How many generations each model was asked for."""
        return [len(model.calls) for model in self.models]


@pytest.fixture
async def fleet(serve: Serve) -> AsyncIterator[Fleet]:
    models = [counting(), counting()]
    servers = [await serve(model, resume_within=Seconds(60.0)) for model in models]
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(CuttingProxy(server.address, Cut(3, 0.5)).running()) for server in servers
        ]
        yield Fleet(models, servers, wires)


async def test_a_stream_goes_on_at_the_server_that_has_it(fleet: Fleet, tmp_path: Path) -> None:
    async with AsyncRouter(loads(CONFIGURATION.format(target=fleet.target), tmp_path)) as router:
        chunks = [chunk async for chunk in router.stream("Count!")]
    assert "".join(chunk.text for chunk in chunks) == "".join(WORDS)
    assert not any(chunk.seam for chunk in chunks)
    answer = chunks[-1].answer
    assert answer is not None
    assert [attempt.reason for attempt in answer.decision.attempts] == ["first choice", "resume"]
    assert sorted(fleet.asked) == [0, 1], "it was computed again"


async def test_a_stream_of_a_server_that_is_gone_is_missed_at_once(fleet: Fleet) -> None:
    backend = GrpcBackend("far", GrpcSettings(fleet.target, connect_timeout=Seconds(0.25)))
    try:
        with pytest.raises(AttemptError) as lost:
            async for _ in backend.generate(CALL, within(10, stream="0123")):
                pass
        assert lost.value.kind is FailureKind.UNREACHABLE
        holder = fleet.asked.index(1)
        await fleet.servers[holder].stop()
        fleet.wires[holder].cut_all()
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        with pytest.raises(AttemptError) as missed:
            await anext(backend.resume(1, within(10, stream="0123")))
        assert clock() - asked_at < 1.0
        assert missed.value.kind in {FailureKind.CONFLICT, FailureKind.UNREACHABLE}
        assert fleet.asked[1 - holder] == 0
    finally:
        await backend.stop()


async def test_a_stream_that_nobody_has_is_a_conflict(fleet: Fleet) -> None:
    backend = GrpcBackend("far", GrpcSettings(fleet.target))
    try:
        with pytest.raises(AttemptError) as missed:
            await anext(backend.resume(1, within(10, stream="4567")))
        assert missed.value.kind is FailureKind.CONFLICT
    finally:
        await backend.stop()


@pytest.mark.parametrize("leave", ["close", "stop", "close once resumed"])
async def test_a_stream_that_is_not_wanted_stops_at_once(leave: str, serve: Serve, connect: Connect) -> None:
    models = [Scripted("m"), Scripted("m")]
    for model in models:
        model.hold = asyncio.Event()
    servers = [await serve(model, resume_within=Seconds(60.0)) for model in models]
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(CuttingProxy(server.address).running()) for server in servers]
        remote = connect(wires[0], target="ipv4:" + ",".join(wire.address for wire in wires))
        events = remote.generate(CALL, within(60, stream="0123"))
        await anext(events)
        (busy,) = [model for model in models if model.seen]
        await asyncio.wait_for(busy.started.wait(), 5)
        if leave == "close once resumed":
            for wire in wires:
                wire.cut_all()
            with pytest.raises(AttemptError):
                await anext(events)
            events = remote.resume(0, within(60, stream="0123"))
            assert await anext(events) == Delta("hello ", 1)
        await (remote.stop() if leave == "stop" else events.aclose())
        await asyncio.wait_for(busy.stopped.wait(), 1)
        await events.aclose()


async def test_a_name_with_several_addresses_and_tls_is_resumed_by_that_name(
    serve: Serve, connect: Connect, certificate: tuple[FilePath, FilePath, FilePath]
) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    chain, key, roots = certificate
    server = await serve(backend, listen="localhost:0", certificate=chain, key=key)
    target = f"dns:///{server.address}"
    remote = connect(server, target=target, balancing=Balancing.ROUND_ROBIN, tls=TlsSettings(roots))
    events = remote.generate(CALL, within(10, stream="0123"))
    await anext(events)
    again = remote.resume(0, within(10, stream="0123"))
    assert await anext(again) == Delta("hello ", 1)
    backend.hold.set()
    assert [type(event) async for event in again] == [Delta, Finish]
    await events.aclose()
    assert len(backend.seen) == 1
