"""Who comes in when there is no room: by priority, in time or not at all, and told when to come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.core.answer import Delta, Finish
from edgewise.core.content import EmbedInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority
from edgewise.core.settings import Seconds, Secret
from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.protos.v1.status_details_pb2 import ErrorInfo, RetryInfo, StatusDetails
from edgewise.router.serving.admission import Admission
from edgewise.router.serving.demand import Demand

from .conftest import CALL, Connect, Scripted, Serve, collect, within

SERVICE = "/edgewise.v1.ModelService"
TEXTS = EmbedInput(("a",))


def soon(seconds: float) -> Deadline:
    return Deadline.after(asyncio.get_running_loop().time(), seconds)


async def busy(remote: GrpcBackend, backend: Scripted) -> asyncio.Task[Any]:
    """One call that holds the only place."""
    backend.hold = asyncio.Event()
    running = asyncio.create_task(collect(remote.generate(CALL, within(30))))
    await asyncio.wait_for(backend.started.wait(), 5)
    return running


async def test_the_more_urgent_goes_first(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend))
    running = await busy(remote, backend)
    later = []
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        later.append(asyncio.create_task(collect(remote.generate(CALL, within(30, priority=priority)))))
        await waits(remote, len(later))
    assert backend.hold is not None
    backend.hold.set()
    await asyncio.gather(running, *later)
    assert [context.priority for _, context in backend.seen[1:]] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


async def waits(remote: GrpcBackend, count: int) -> None:
    """Return once so many calls wait at the only model."""
    line = remote._connection.take()
    while True:
        answer = wire.ListModelsResponse.FromString(await line.unary(f"{SERVICE}/ListModels")(b""))
        if answer.models[0].load.queue_depth == count:
            assert answer.models[0].load.running == 1
            return


@pytest.mark.parametrize("bound", ["start_by", "first_by"])
async def test_what_cannot_start_in_time_is_sent_on(bound: str, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend))
    running = await busy(remote, backend)
    with pytest.raises(AttemptError) as caught:
        await collect(remote.generate(CALL, within(30, **{bound: soon(0.1)})))
    assert caught.value.kind is FailureKind.OVERLOADED
    assert caught.value.retry_after is not None
    assert len(backend.seen) == 1
    running.cancel()


async def test_who_would_wait_too_long_is_told_so_at_once() -> None:
    admission = Admission(limit=1, max_waiting=8)
    clock = asyncio.get_running_loop().time

    def demand(priority: Priority, seconds: float) -> Demand:
        return Demand(within(seconds, priority=priority))

    async with admission.place(demand(Priority.NORMAL, 10)):
        await asyncio.sleep(0.05)  # what is learned of the typical time

    async def hold(priority: Priority) -> None:
        async with admission.place(demand(priority, 10)):
            await asyncio.sleep(10)

    held = [asyncio.create_task(hold(Priority.NORMAL)) for _ in range(6)]
    await asyncio.sleep(0)
    asked = clock()
    with pytest.raises(AttemptError, match="longer than this one can wait"):
        async with admission.place(demand(Priority.NORMAL, 0.1)):
            pass
    assert clock() - asked < 0.05
    with pytest.raises(AttemptError, match="did not come in time"):  # nobody is ahead of it
        async with admission.place(demand(Priority.HIGH, 0.1)):
            pass
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_first_token_that_is_late_stops_the_work(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.silent = True
    remote = connect(await serve(backend))
    with pytest.raises(AttemptError) as caught:
        await collect(remote.generate(CALL, within(30, first_by=soon(0.1))))
    assert caught.value.kind is FailureKind.TIMED_OUT
    await asyncio.wait_for(backend.closed.wait(), 1)


async def test_one_caller_does_not_take_all_places(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m", limit=8)
    server = await serve(backend, max_per_peer=1, tokens=(Secret("mine"), Secret("other")))
    mine, other = (connect(server, credentials=Secret(token)) for token in ("mine", "other"))
    running = await busy(mine, backend)
    with pytest.raises(AttemptError) as caught:
        await mine.embed(TEXTS, within(5))
    assert caught.value.kind is FailureKind.OVERLOADED
    assert caught.value.retry_after is not None
    others = asyncio.create_task(other.embed(TEXTS, within(5)))
    assert backend.hold is not None
    while len(backend.seen) < 2:  # noqa: ASYNC110  # that a call arrives is no event here
        await asyncio.sleep(0)
    backend.hold.set()
    await asyncio.gather(running, others)
    await mine.embed(TEXTS, within(5))


async def test_the_finish_says_how_long_it_took_and_how_busy_the_server_is(serve: Serve) -> None:
    server = await serve(Scripted("m"))
    request = wire.GenerateRequest(messages=[wire.Message(role=wire.ROLE_USER, text="hello")]).SerializeToString()
    async with grpc.aio.insecure_channel(server.address) as channel:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"{SERVICE}/Generate")
        messages = [wire.GenerateResponse.FromString(message) async for message in call(request, timeout=5)]
    assert [message.sequence for message in messages] == [1, 2, 3]
    finish = messages[-1].finish
    assert finish.origin.place == "NL"
    assert finish.origin.load.running == 1
    assert finish.origin.load.tokens_per_second > 0
    assert finish.timings.HasField("first_token_ms")
    assert finish.timings.total_ms >= finish.timings.first_token_ms


async def test_a_refusal_is_a_google_rpc_status_too(serve: Serve) -> None:
    backend = Scripted("m")
    backend.failure = AttemptError(FailureKind.OVERLOADED, "no room", retry_after=1.25)
    server = await serve(backend)
    request = wire.EmbedRequest(texts=["a"]).SerializeToString()
    async with grpc.aio.insecure_channel(server.address) as channel:
        embed: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/Embed")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await embed(request, timeout=5)
    trailing = caught.value.trailing_metadata()
    assert trailing is not None
    packed = trailing["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    status = StatusDetails.FromString(packed)
    assert (status.code, status.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "no room")
    info, retry = (detail.value for detail in status.details)
    assert (ErrorInfo.FromString(info).reason, ErrorInfo.FromString(info).domain) == ("OVERLOADED", "edgewise")
    delay = RetryInfo.FromString(retry).retry_delay
    assert (delay.seconds, delay.nanos) == (1, 250_000_000)


async def test_stopping_lets_streams_end_and_takes_no_more(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m", limit=4)
    server = await serve(backend, drain=Seconds(10.0))
    remote, late = connect(server), connect(server)
    backend.hold = asyncio.Event()
    events = remote.generate(CALL, within(30, stream="0123"))
    assert isinstance(await anext(events), Delta)
    stopping = asyncio.create_task(server.stop())
    refused: list[FailureKind] = []
    while FailureKind.UNREACHABLE not in refused:
        with pytest.raises(AttemptError) as caught:
            # One that came before the server closed its door is served, and waits here.
            await late.embed(TEXTS, within(0.2))
        refused.append(caught.value.kind)
    backend.hold.set()
    assert [type(event) async for event in events] == [Delta, Finish]
    await asyncio.wait_for(stopping, 5)


async def test_what_a_stopped_server_still_worked_on_has_ended(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    server = await serve(backend, drain=Seconds(0.05), resume_within=Seconds(60.0))
    events = connect(server).generate(replace(CALL, messages=(Message.user("x"),)), within(30, stream="0123"))
    await anext(events)
    await asyncio.wait_for(backend.started.wait(), 5)
    await server.stop()
    assert backend.stopped.is_set()
    with pytest.raises(AttemptError):
        await anext(events)
