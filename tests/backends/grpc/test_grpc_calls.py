"""Calls to a server over a real connection: what it sees, how they end, and that ending them reaches it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc.aio
import pytest

from edgewise.backends import BackendHealth, HealthState
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import EmbedInput, GenerateInput, InferInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority, Task
from edgewise.core.settings import Secret
from edgewise.protos.v1 import model_service_pb2 as wire

from .conftest import CALL, SECRET_WORDS, MakeBackend, Servers, collect, delta, finish, two_words, within

Context = grpc.aio.ServicerContext[bytes, bytes]


class Endless:
    """Streams one delta and then nothing, until it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def answer(self, request: bytes, context: Context) -> None:
        try:
            await context.write(delta("once "))
            self.started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_a_stream_arrives_as_core_types(servers: Servers, make_backend: MakeBackend) -> None:
    events = await collect(make_backend(await servers.start()).generate(CALL, within(5)))
    assert [event.text for event in events if isinstance(event, Delta)] == ["hello ", "there"]
    assert events[-1] == Finish(FinishReason.STOP, Usage(3, 2))


async def test_the_server_gets_the_request_its_labels_and_the_deadline(
    servers: Servers, make_backend: MakeBackend
) -> None:
    seen: list[tuple[wire.GenerateRequest, float, dict[str, str | bytes]]] = []

    async def record(request: bytes, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        seen.append((wire.GenerateRequest.FromString(request), context.time_remaining(), metadata))
        await context.write(finish())

    backend = make_backend(await servers.start(record), model="m", credentials=Secret("key-1"))
    context = replace(within(3), data_classes=("health",), priority=Priority.HIGH, idempotency_key="random", attempt=2)
    await collect(backend.generate(CALL, context))

    ((request, remaining, metadata),) = seen
    assert 2.5 < remaining <= 3.0
    assert 2500 < request.call.budgets.total_ms <= 3000
    assert [message.text for message in request.messages] == [SECRET_WORDS]
    assert request.model == "m"
    info = request.call
    assert (info.request_id, info.attempt, info.priority) == ("request-1", 2, wire.PRIORITY_HIGH)
    assert (info.idempotency_key, list(info.data_classes)) == ("random", ["health"])
    assert metadata["authorization"] == "Bearer key-1"
    assert SECRET_WORDS not in repr(metadata)


async def test_a_call_past_its_deadline_is_not_sent(servers: Servers, make_backend: MakeBackend) -> None:
    sent = asyncio.Event()

    async def record(request: bytes, context: Context) -> None:
        sent.set()

    backend = make_backend(await servers.start(record))
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(CALL, within(0.0)))
    assert caught.value.kind is FailureKind.TIMED_OUT
    assert not sent.is_set()


async def test_a_stream_that_falls_silent_ends_by_its_deadline(servers: Servers, make_backend: MakeBackend) -> None:
    endless = Endless()
    backend = make_backend(await servers.start(endless.answer))
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(CALL, within(0.3)))
    assert caught.value.kind is FailureKind.TIMED_OUT
    assert clock() - began < 0.3 + 0.2
    await asyncio.wait_for(endless.cancelled.wait(), 1.0)


async def test_closing_a_stream_stops_the_server_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    endless = Endless()
    events = make_backend(await servers.start(endless.answer)).generate(CALL, within(30))
    assert await anext(aiter(events)) == Delta("once ")
    await events.aclose()
    await asyncio.wait_for(endless.cancelled.wait(), 0.1)


async def test_cancelling_a_task_stops_the_server_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    endless = Endless()
    backend = make_backend(await servers.start(endless.answer))
    task = asyncio.create_task(collect(backend.generate(CALL, within(30))))
    await asyncio.wait_for(endless.started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(endless.cancelled.wait(), 0.1)


async def test_cancelling_a_unary_call_stops_the_server_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(request: bytes, context: Context) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    backend = make_backend(await servers.start(embed=forever))
    task = asyncio.create_task(backend.embed(EmbedInput(("a",)), within(30)))
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.wait(), 0.1)


async def test_a_whole_answer_is_not_cancelled_at_its_end(servers: Servers, make_backend: MakeBackend) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def linger(request: bytes, context: Context) -> None:
        try:
            await two_words(request, context)
            for _ in range(50):  # turns in which a client's cancelling would arrive
                await asyncio.sleep(0)
            await ended.put("well")
        except asyncio.CancelledError:
            await ended.put("cancelled")
            raise

    backend = make_backend(await servers.start(linger))
    await collect(backend.generate(CALL, within(5)))
    assert await asyncio.wait_for(ended.get(), 1) == "well"


async def test_a_server_that_lingers_after_the_finish_costs_next_to_nothing(
    servers: Servers, make_backend: MakeBackend
) -> None:
    async def linger(request: bytes, context: Context) -> None:
        await two_words(request, context)
        await asyncio.Event().wait()

    backend = make_backend(await servers.start(linger))
    events = await asyncio.wait_for(collect(backend.generate(CALL, within(30))), 2)
    assert isinstance(events[-1], Finish)


@pytest.mark.parametrize("end", [wire.Finish(), None])
async def test_a_stream_cut_before_its_reason_is_truncated(
    end: wire.Finish | None, servers: Servers, make_backend: MakeBackend
) -> None:
    async def cut(request: bytes, context: Context) -> None:
        await context.write(delta("half "))
        if end is not None:
            await context.write(wire.GenerateResponse(finish=end).SerializeToString())

    events = aiter(make_backend(await servers.start(cut)).generate(CALL, within(5)))
    assert await anext(events) == Delta("half ")
    with pytest.raises(AttemptError) as caught:
        await anext(events)
    assert caught.value.kind is FailureKind.TRUNCATED


async def test_no_text_is_lost_to_a_slow_reader(servers: Servers, make_backend: MakeBackend) -> None:
    words = [f"{number} " for number in range(500)]

    async def pour(request: bytes, context: Context) -> None:
        for word in words:
            await context.write(delta(word))
        await context.write(finish())

    heard = []
    async for event in make_backend(await servers.start(pour)).generate(CALL, within(20)):
        await asyncio.sleep(0)
        if isinstance(event, Delta):
            heard.append(event.text)
    assert heard == words


async def test_messages_that_cannot_be_read_are_another_protocol(servers: Servers, make_backend: MakeBackend) -> None:
    async def garble(request: bytes, context: Context) -> None:
        await context.write(b"\xff\xff\xff\xff")

    async def wrong_shape(request: bytes, context: Context) -> bytes:
        tensor = wire.Tensor(dtype="float32", shape=[1, 9], data=bytes(8))
        return wire.EmbedResponse(vectors=tensor).SerializeToString()

    backend = make_backend(await servers.start(garble, wrong_shape))
    with pytest.raises(AttemptError) as streamed:
        await collect(backend.generate(CALL, within(5)))
    with pytest.raises(AttemptError) as answered:
        await backend.embed(EmbedInput(("a",)), within(5))
    assert streamed.value.kind is answered.value.kind is FailureKind.PROTOCOL


async def test_a_server_without_the_service_is_told_apart(servers: Servers, make_backend: MakeBackend) -> None:
    backend = make_backend(await servers.start())
    with pytest.raises(AttemptError) as caught:
        await backend.infer(InferInput("m", {}), within(5))
    assert caught.value.kind is FailureKind.UNSUPPORTED


async def test_what_is_not_declared_is_not_asked(servers: Servers, make_backend: MakeBackend) -> None:
    backend = make_backend(await servers.start(), tasks=(Task.EMBED,))
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.UNSUPPORTED


@pytest.mark.parametrize(
    "call",
    [
        GenerateInput((Message.user(f"{SECRET_WORDS} \ud800"),)),
        GenerateInput((Message.user(SECRET_WORDS),), seed=2**70),
        GenerateInput((Message.user(SECRET_WORDS),), max_output_tokens=-1),
        GenerateInput((Message.user(SECRET_WORDS),), response_format={"type": SECRET_WORDS}),
        GenerateInput((Message.user("a"),), response_format={"type": "json_schema", "schema": {SECRET_WORDS: {1}}}),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_a_word_of_it(
    call: GenerateInput, servers: Servers, make_backend: MakeBackend
) -> None:
    with pytest.raises(AttemptError) as caught:
        await collect(make_backend(await servers.start()).generate(call, within(5)))
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert "plover" not in repr(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_a_request_too_large_to_send_asks_for_a_larger_context(
    servers: Servers, make_backend: MakeBackend
) -> None:
    backend = make_backend(await servers.start())
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(GenerateInput((Message.user("a" * (65 * 1024 * 1024)),)), within(20)))
    assert caught.value.kind is FailureKind.CONTEXT_LENGTH


async def test_a_request_too_large_for_the_server_asks_for_a_larger_context(
    servers: Servers, make_backend: MakeBackend
) -> None:
    backend = make_backend(await servers.start())  # whose limit is the library's own, 4 MiB
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(GenerateInput((Message.user("a" * (5 * 1024 * 1024)),)), within(20)))
    assert caught.value.kind is FailureKind.CONTEXT_LENGTH


async def test_stopping_ends_running_calls_with_a_failure_not_a_cancellation(
    servers: Servers, make_backend: MakeBackend
) -> None:
    endless = Endless()
    backend = make_backend(await servers.start(endless.answer))
    assert backend.health().state is HealthState.READY
    call = asyncio.create_task(collect(backend.generate(CALL, within(30))))
    await asyncio.wait_for(endless.started.wait(), 5)
    await backend.stop()
    with pytest.raises(AttemptError) as ended:
        await asyncio.wait_for(call, 1)
    assert ended.value.kind is FailureKind.PREEMPTED
    await asyncio.wait_for(endless.cancelled.wait(), 1)

    await backend.stop()
    assert backend.health().state is HealthState.DOWN
    with pytest.raises(AttemptError) as refused:
        await collect(backend.generate(CALL, within(5)))
    assert refused.value.kind is FailureKind.UNREACHABLE


async def test_credentials_that_the_library_refuses_are_a_typed_failure(
    servers: Servers, make_backend: MakeBackend
) -> None:
    backend = make_backend(await servers.start(), credentials=Secret("line\nbreak"))
    with pytest.raises(AttemptError):
        await collect(backend.generate(CALL, within(0.5)))
    with pytest.raises(AttemptError):
        await backend.embed(EmbedInput(("a",)), within(0.5))


async def test_a_probe_that_found_the_server_there_leaves_nothing_to_say(
    servers: Servers, make_backend: MakeBackend
) -> None:
    backend = make_backend(await servers.start())  # without grpc.health
    await backend.probe(5.0)
    assert backend.health() == BackendHealth(HealthState.READY)
