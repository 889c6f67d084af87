"""Calls over a real connection: what the server gets, what is read, and how they end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from edgewise.backends import HealthState
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Delta, Finish, FinishReason, TokenLogprob, Usage
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import Secret

from .conftest import (
    CALL,
    DONE,
    HELLO,
    SECRET_WORDS,
    MakeBackend,
    Request,
    Servers,
    answer,
    begin,
    chunk,
    collect,
    failure_of,
    send,
    stream,
    within,
)


async def test_a_stream_arrives_as_core_types(servers: Servers, make_backend: MakeBackend) -> None:
    events = await collect(make_backend(await servers.start(stream(*HELLO))).generate(CALL, within(5)))
    assert events == [Delta("hello "), Delta("there"), Finish(FinishReason.LENGTH, Usage(3, 2), "m-1")]


@pytest.mark.parametrize("size", [1, 7])
async def test_events_may_be_cut_anywhere(servers: Servers, make_backend: MakeBackend, size: int) -> None:
    whole = b": hello\r\n\r\n" + chunk("grüße ").replace(b"\n", b"\r\n") + b"".join(HELLO[1:])
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    events = await collect(make_backend(await servers.start(stream(*pieces))).generate(CALL, within(5)))
    assert [event.text for event in events if isinstance(event, Delta)] == ["grüße ", "there"]
    assert isinstance(events[-1], Finish)


async def test_the_server_gets_the_request(servers: Servers, make_backend: MakeBackend) -> None:
    backend = make_backend(await servers.start(stream(*HELLO)), credentials=Secret("key-1"))
    call = GenerateInput(
        (Message.system("short"), Message.user(SECRET_WORDS)),
        max_output_tokens=5,
        seed=7,
        stop=("\n",),
        logprobs=2,
        response_format={"type": "json_schema", "schema": {"type": "object"}},
    )
    await collect(backend.generate(call, replace(within(5), idempotency_key="random")))
    (request,) = servers.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key-1"
    assert request.headers["idempotency-key"] == "random"
    assert request.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": SECRET_WORDS}],
        "max_tokens": 5,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": 7,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
    }


async def test_log_probabilities_are_read(servers: Servers, make_backend: MakeBackend) -> None:
    content = [{"token": "hi", "logprob": -0.5, "top_logprobs": [{"token": "ho", "logprob": -1.5}]}]
    choice = {"delta": {"content": "hi"}, "logprobs": {"content": content}, "finish_reason": "stop"}
    piece = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    events = await collect(make_backend(await servers.start(stream(piece))).generate(CALL, within(5)))
    assert events[0] == Delta("hi", 1, (TokenLogprob("hi", -0.5, (("ho", -1.5),)),))
    # No usage came, and no [DONE]: the stream's own good end counts.
    assert events[1] == Finish(FinishReason.STOP, Usage(0, 1))


async def test_embeddings_are_put_in_order(servers: Servers, make_backend: MakeBackend) -> None:
    rows = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1.5, 2]}]
    body = json.dumps({"data": rows, "model": "e-1", "usage": {"prompt_tokens": 4}}).encode()
    embeddings = await make_backend(await servers.start(answer(body))).embed(EmbedInput(("a", "b")), within(5))
    assert to_array(embeddings.vectors).tolist() == [[1.5, 2], [3, 4]]
    assert (embeddings.usage, embeddings.model) == (Usage(4, 0), "e-1")
    assert servers.requests[0].body == {"model": "e", "input": ["a", "b"], "encoding_format": "float"}


@pytest.mark.parametrize("body", [b"<html>", b'{"data": []}', b'{"data": [{"index": 0, "embedding": ["x"]}]}', b"[1]"])
async def test_what_are_no_embeddings_is_another_protocol(
    servers: Servers, make_backend: MakeBackend, body: bytes
) -> None:
    with pytest.raises(AttemptError) as caught:
        await make_backend(await servers.start(answer(body))).embed(EmbedInput(("a",)), within(5))
    assert caught.value.kind is FailureKind.PROTOCOL


def error(code: str = "", message: str = SECRET_WORDS) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("400 Bad Request", error(), FailureKind.INVALID_REQUEST),
        ("400 Bad Request", error("context_length_exceeded"), FailureKind.CONTEXT_LENGTH),
        ("400 Bad Request", error("content_filter"), FailureKind.CONTENT_FILTER),
        ("401 Unauthorized", error("invalid_api_key"), FailureKind.CREDENTIALS),
        ("403 Forbidden", b"", FailureKind.CREDENTIALS),
        ("404 Not Found", error("model_not_found"), FailureKind.MODEL_UNAVAILABLE),
        ("404 Not Found", error(), FailureKind.MODEL_UNAVAILABLE),
        ("404 Not Found", b'{"detail": "Not Found"}', FailureKind.PROTOCOL),
        ("413 Too Large", b"", FailureKind.CONTEXT_LENGTH),
        ("429 Too Many", error("rate_limit_exceeded"), FailureKind.OVERLOADED),
        ("429 Too Many", error("insufficient_quota"), FailureKind.CREDENTIALS),
        ("500 Oh", b"[" * 100_000, FailureKind.INTERNAL),
        ("502 Bad Gateway", b"", FailureKind.UNREACHABLE),
        ("503 Unavailable", b"", FailureKind.OVERLOADED),
        ("504 Timeout", b"", FailureKind.TIMED_OUT),
        ("529 Overloaded", b"", FailureKind.INTERNAL),
        ("302 Found", b"", FailureKind.PROTOCOL),
        ("204 No Content", b"", FailureKind.PROTOCOL),
    ],
)
async def test_every_status_means_something(
    servers: Servers, make_backend: MakeBackend, status: str, body: bytes, kind: FailureKind
) -> None:
    headers = "Location: https://elsewhere.example/\r\n" if status.startswith("302") else ""
    failed = await failure_of(make_backend(await servers.start(answer(body, status, headers))))
    assert failed.kind is kind
    assert len(servers.requests) == 1, "asked again, which is the router's to decide"


@pytest.mark.parametrize(
    ("header", "seconds"), [("Retry-After: 3", 3.0), ("Retry-After-Ms: 250", 0.25), ("Retry-After: soon", None)]
)
async def test_pushback_is_passed_on(
    servers: Servers, make_backend: MakeBackend, header: str, seconds: float | None
) -> None:
    talk = answer(b"", "429 Too Many", f"{header}\r\n")
    assert (await failure_of(make_backend(await servers.start(talk)))).retry_after == seconds


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((chunk("half "),), FailureKind.TRUNCATED),
        ((chunk("half "), DONE), FailureKind.TRUNCATED),
        ((chunk("half "), b"data: " + error() + b"\n\n"), FailureKind.INTERNAL),
        ((chunk("half "), chunk(reason="content_filter")), FailureKind.CONTENT_FILTER),
        ((chunk(reason="tool_calls"),), FailureKind.INTERNAL),
        ((b"data: nonsense\n\n",), FailureKind.PROTOCOL),
        ((b"data: [1, 2]\n\n",), FailureKind.PROTOCOL),
        ((b"data: " + b"x" * 5_000_000,), FailureKind.PROTOCOL),
    ],
)
async def test_a_stream_without_its_good_end_is_a_failure(
    servers: Servers, make_backend: MakeBackend, pieces: tuple[bytes, ...], kind: FailureKind
) -> None:
    assert (await failure_of(make_backend(await servers.start(stream(*pieces))))).kind is kind


async def test_a_connection_that_breaks_in_mid_stream(servers: Servers, make_backend: MakeBackend) -> None:
    async def break_off(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, chunk("half "))
        writer.close()

    assert (await failure_of(make_backend(await servers.start(break_off)))).kind is FailureKind.UNREACHABLE


class Endless:
    """Streams one piece and then nothing, and notices when the client goes."""

    def __init__(self, before: bool = False) -> None:
        self.started, self.left = asyncio.Event(), asyncio.Event()
        self._before = before

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if not self._before:
            await begin(writer)
            await send(writer, chunk("once "))
        self.started.set()
        await request.connection.read()  # until the client goes
        self.left.set()


@pytest.mark.parametrize("before", [True, False])
async def test_silence_ends_by_the_deadline(servers: Servers, make_backend: MakeBackend, before: bool) -> None:
    endless = Endless(before)
    backend = make_backend(await servers.start(endless))
    clock = asyncio.get_running_loop().time
    began = clock()
    assert (await failure_of(backend, 0.3)).kind is FailureKind.TIMED_OUT
    assert clock() - began < 0.5
    await asyncio.wait_for(endless.left.wait(), 1)


async def test_the_deadline_does_not_strike_the_reader(servers: Servers, make_backend: MakeBackend) -> None:
    events = make_backend(await servers.start(Endless())).generate(CALL, within(1.0))
    assert await anext(events) == Delta("once ")
    await asyncio.sleep(1.1)  # the reader's own time: no exception may come up here
    with pytest.raises(AttemptError) as caught:
        await anext(events)
    assert caught.value.kind is FailureKind.TIMED_OUT


async def test_a_call_past_its_deadline_is_not_sent(servers: Servers, make_backend: MakeBackend) -> None:
    assert (await failure_of(make_backend(await servers.start(stream(*HELLO))), 0.0)).kind is FailureKind.TIMED_OUT
    assert servers.requests == []


async def test_closing_a_stream_and_cancelling_a_task_reach_the_server(
    servers: Servers, make_backend: MakeBackend
) -> None:
    closed, cancelled = Endless(), Endless()
    events = make_backend(await servers.start(closed)).generate(CALL, within(30))
    await anext(events)
    await events.aclose()
    await asyncio.wait_for(closed.left.wait(), 1)

    backend = make_backend(await servers.start(cancelled))
    task = asyncio.create_task(collect(backend.generate(CALL, within(30))))
    await asyncio.wait_for(cancelled.started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.left.wait(), 1)


async def test_stopping_ends_running_calls_with_a_failure(servers: Servers, make_backend: MakeBackend) -> None:
    endless = Endless()
    backend = make_backend(await servers.start(endless))
    call = asyncio.create_task(failure_of(backend, 30))
    await asyncio.wait_for(endless.started.wait(), 5)
    await backend.stop()
    assert (await asyncio.wait_for(call, 1)).kind is FailureKind.PREEMPTED
    await backend.stop()
    assert backend.health().state is HealthState.DOWN
    assert (await failure_of(backend)).kind is FailureKind.UNREACHABLE


async def test_nobody_there_is_known_at_once(servers: Servers, make_backend: MakeBackend) -> None:
    url = await servers.start(stream())
    servers.running[0].close()
    assert (await failure_of(make_backend(url))).kind is FailureKind.UNREACHABLE


async def test_another_protocol_is_told_apart(servers: Servers, make_backend: MakeBackend) -> None:
    async def ssh(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-whatever\r\n\r\n")
        await writer.drain()

    assert (await failure_of(make_backend(await servers.start(ssh)))).kind is FailureKind.PROTOCOL


@pytest.mark.parametrize(
    "call",
    [
        GenerateInput((Message.user(f"{SECRET_WORDS} \ud800"),)),
        GenerateInput((Message.user(SECRET_WORDS),), temperature=float("nan")),
        GenerateInput((Message.user(SECRET_WORDS),), response_format={"type": "grammar", "grammar": SECRET_WORDS}),
        GenerateInput((Message.user("a"),), response_format={"type": "json_schema", "schema": {SECRET_WORDS: {1}}}),
    ],
)
async def test_what_cannot_be_sent_is_refused_without_a_word_of_it(
    call: GenerateInput, servers: Servers, make_backend: MakeBackend
) -> None:
    failed = await failure_of(make_backend(await servers.start(stream(*HELLO))), call=call)
    assert failed.kind is FailureKind.INVALID_REQUEST
    assert servers.requests == []


async def test_a_crash_of_a_server_that_has_answered_is_not_looked_into(
    servers: Servers, make_backend: MakeBackend
) -> None:
    async def talk(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(servers.requests) > 1:
            raise ConnectionError
        await stream(*HELLO)(request, writer)

    backend = make_backend(await servers.start(talk))
    await collect(backend.generate(CALL, within(5)))
    assert (await failure_of(backend)).kind is FailureKind.UNREACHABLE
    assert len(servers.tasks) <= len(servers.requests) == 2  # no connection but for a request
