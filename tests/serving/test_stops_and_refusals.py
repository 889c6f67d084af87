"""When work stops because nobody waits for it, and when it does not begin for want of room."""

from __future__ import annotations

import asyncio
import sys

import pytest

from edgewise.core.answer import Finish, FinishReason, Usage
from edgewise.core.content import EmbedInput
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.protos.v1 import model_service_pb2 as wire

from .conftest import CALL, Connect, Scripted, Serve, collect, within


async def test_closing_the_stream_stops_the_backend(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    events = connect(await serve(backend)).generate(CALL, within(30))
    await anext(aiter(events))
    await asyncio.wait_for(backend.started.wait(), 5)
    await events.aclose()
    await asyncio.wait_for(backend.stopped.wait(), 0.1)


@pytest.mark.parametrize("task", [Task.GENERATE, Task.EMBED])
async def test_cancelling_the_call_stops_the_backend(task: Task, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend))
    work = (
        collect(remote.generate(CALL, within(30)))
        if task is Task.GENERATE
        else remote.embed(EmbedInput(("a",)), within(30))
    )
    call = asyncio.ensure_future(work)
    await asyncio.wait_for(backend.started.wait(), 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(backend.stopped.wait(), 0.1)


async def test_the_deadline_stops_the_backend(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    with pytest.raises(AttemptError) as caught:
        await collect(connect(await serve(backend)).generate(CALL, within(0.2)))
    assert caught.value.kind is FailureKind.TIMED_OUT
    await asyncio.wait_for(backend.stopped.wait(), 0.5)


async def test_a_client_that_dies_stops_the_backend(serve: Serve) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend)
    script = (
        "import grpc, sys\n"
        "call = grpc.insecure_channel(sys.argv[1]).unary_stream('/edgewise.v1.ModelService/Generate')\n"
        "list(call(bytes.fromhex(sys.argv[2])))\n"
    )
    request = wire.GenerateRequest(messages=[wire.Message(role=wire.ROLE_USER, text="hello")]).SerializeToString()
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", script, server.address, request.hex())
    await asyncio.wait_for(backend.started.wait(), 20)
    client.kill()
    await client.wait()
    await asyncio.wait_for(backend.stopped.wait(), 1)


async def test_those_who_find_no_room_are_told_when_to_come_back(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend, max_waiting=1))
    running = asyncio.create_task(collect(remote.generate(CALL, within(20))))
    await asyncio.wait_for(backend.started.wait(), 5)
    later = [asyncio.create_task(collect(remote.generate(CALL, within(20)))) for _ in range(2)]
    (refused,), (waiting,) = await asyncio.wait(later, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    error = refused.exception()
    assert isinstance(error, AttemptError)
    assert error.kind is FailureKind.OVERLOADED
    assert error.retry_after is not None
    assert 0.0 < error.retry_after <= 10.0
    assert len(backend.seen) == 1

    backend.hold.set()
    first, second = await asyncio.gather(running, waiting)
    assert first[-1] == Finish(FinishReason.LENGTH, Usage(7, 3), "scripted-1", "NL", 1)
    assert second[-1] == Finish(FinishReason.LENGTH, Usage(7, 3), "scripted-1", "NL", 0)


async def test_a_call_cancelled_while_it_waits_leaves_its_place(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend, max_waiting=4))
    running = asyncio.create_task(collect(remote.generate(CALL, within(20))))
    await asyncio.wait_for(backend.started.wait(), 5)
    with pytest.raises(AttemptError):
        await collect(remote.generate(CALL, within(0.1)))
    backend.hold.set()
    await running
    assert isinstance((await collect(remote.generate(CALL, within(5))))[-1], Finish)
    assert len(backend.seen) == 2
