"""Every call, from a client backend over the wire to a served backend and back."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncGenerator
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from edgewise.backends import CallContext, HealthState
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from edgewise.core.content import (
    ClassifyInput,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
    Role,
    Tensor,
)
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority, Task
from edgewise.protos.v1 import model_service_pb2 as wire

from .conftest import CALL, SECRET_WORDS, Connect, Scripted, Serve, collect, within


async def test_generate_streams_text_and_the_full_finish(serve: Serve, connect: Connect) -> None:
    remote = connect(await serve(Scripted("m")))
    events = await collect(remote.generate(replace(CALL, logprobs=1), within(5)))
    assert events == [
        Delta("hello ", 1, (TokenLogprob("hello", -0.25, (("hi", -1.5),)),)),
        Delta("there", 2),
        Finish(FinishReason.LENGTH, Usage(7, 3), "scripted-1", "NL", 0),
    ]


async def test_the_backend_gets_content_and_labels_as_they_were_sent(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    call = GenerateInput(
        (Message.system("be brief"), Message.user("why?"), Message.assistant("Because")),
        max_output_tokens=7,
        temperature=0.1,
        top_p=0.5,
        seed=-3,
        stop=("\n", "END"),
        response_format={"type": "json_schema", "schema": {"type": "object"}},
        logprobs=2,
    )
    context = replace(
        within(5), data_classes=("health", "personal"), priority=Priority.HIGH, idempotency_key="key", attempt=3
    )
    await collect(connect(await serve(backend)).generate(call, context))

    ((got, its),) = backend.seen
    assert got == call
    assert isinstance(got, GenerateInput)
    assert got.continues
    assert (its.request_id, its.data_classes, its.priority) == ("request-1", ("health", "personal"), Priority.HIGH)
    assert (its.idempotency_key, its.attempt) == ("key", 3)
    assert its.deadline.at == pytest.approx(context.deadline.at, abs=0.2)


@pytest.mark.parametrize(
    "form", [None, {"type": "json_object"}, {"type": "grammar", "grammar": 'root ::= "yes"'}], ids=str
)
async def test_response_formats_arrive(form: dict[str, str] | None, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    await collect(connect(await serve(backend)).generate(replace(CALL, response_format=form), within(5)))
    assert backend.seen[0][0] == replace(CALL, response_format=form)


async def test_embed(serve: Serve, connect: Connect) -> None:
    answer = await connect(await serve(Scripted("m"))).embed(EmbedInput(("a", "b", "")), within(5))
    assert (answer.vectors.dtype, answer.vectors.shape, answer.vectors.data) == ("float32", (3, 2), bytes(24))
    assert (answer.usage, answer.model, answer.place) == (Usage(3, 0), "scripted-1", "NL")


async def test_classify(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend), tasks=(Task.CLASSIFY,))
    answer = await remote.classify(ClassifyInput(("a", "b", "")), within(5))
    assert answer.labels == ("calm", "angry")
    assert answer.scores == Tensor("float32", (3, 2), struct.pack("<2f", 0.25, 0.75) * 3)
    assert (answer.usage, answer.model) == (Usage(3, 0), "scripted-1")
    ((sent, _),) = backend.seen
    assert sent == ClassifyInput(("a", "b", ""))


async def test_what_does_not_classify_says_so(serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m", frozenset({Task.EMBED})))
    with pytest.raises(AttemptError) as refused:
        await connect(server, tasks=(Task.CLASSIFY,)).classify(ClassifyInput(("a",)), within(5))
    assert refused.value.kind is FailureKind.UNSUPPORTED


async def test_tokens_are_counted_beside_a_generation_that_has_the_only_place(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend, max_waiting=0))
    generating = asyncio.create_task(collect(remote.generate(CALL, within(20))))
    await asyncio.wait_for(backend.started.wait(), 5)
    prompt = (Message.system("be brief"), Message.user("why?"), Message.assistant(""))
    assert await remote.count_tokens(CountTokensInput(prompt), within(5)) == 7
    sent, _ = backend.seen[-1]
    assert sent == CountTokensInput(prompt)
    backend.hold.set()
    await generating


async def test_what_does_not_count_says_so_and_no_count_is_made_up(serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m", frozenset({Task.GENERATE})))
    with pytest.raises(AttemptError) as refused:
        await connect(server).count_tokens(CountTokensInput(CALL.messages), within(5))
    assert refused.value.kind is FailureKind.UNSUPPORTED


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("float32", (2, 2), bytes(range(16))),
        Tensor("int64", (), bytes(8)),
        Tensor("bool", (0, 3), b""),
        Tensor("string", (2,), b"\x02\x00\x00\x00hi\x00\x00\x00\x00"),
    ],
    ids=repr,
)
async def test_infer_takes_tensors_there_and_back(tensor: Tensor, serve: Serve, connect: Connect) -> None:
    backend = Scripted("triage")
    answer = await connect(await serve(backend)).infer(InferInput("triage", {"x": tensor}), within(5))
    sent, back = backend.seen[0][0], answer.outputs["x"]
    assert isinstance(sent, InferInput)
    for got in (sent.inputs["x"], back):
        assert (got.dtype, got.shape, got.data) == (tensor.dtype, tensor.shape, tensor.data)
    assert answer.place == "NL"


async def raw(address: str, method: str, request: bytes) -> bytes:
    """One call by hand, as any client may make it."""
    async with grpc.aio.insecure_channel(address) as channel:
        path = f"/edgewise.v1.ModelService/{method}"
        if method != "Generate":
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            return await unary(request, timeout=5)
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        return [message async for message in stream(request, timeout=5)][-1]


async def test_list_models(serve: Serve) -> None:
    down = Scripted("down", frozenset({Task.EMBED}))
    down.state = HealthState.DOWN
    server = await serve(Scripted("m"), down)
    answer = wire.ListModelsResponse.FromString(await raw(server.address, "ListModels", b""))
    assert answer.place == "NL"
    assert [(model.name, model.ready, len(model.tasks)) for model in answer.models] == [
        ("m", True, 5),
        ("down", False, 1),
    ]
    assert (answer.models[0].context_tokens, answer.models[0].continues, answer.models[0].constrains) == (
        512,
        True,
        False,
    )


async def test_a_model_is_chosen_by_name_or_by_being_the_only_one(serve: Serve, connect: Connect) -> None:
    writer, reader = Scripted("writer", frozenset({Task.GENERATE})), Scripted("reader", frozenset({Task.EMBED}))
    server = await serve(writer, reader)
    await collect(connect(server).generate(CALL, within(5)))
    await connect(server).embed(EmbedInput(("a",)), within(5))
    await collect(connect(server, model="writer").generate(CALL, within(5)))
    assert (len(writer.seen), len(reader.seen)) == (2, 1)

    for model, kind in (("nobody", FailureKind.MODEL_UNAVAILABLE), ("reader", FailureKind.UNSUPPORTED)):
        with pytest.raises(AttemptError) as caught:
            await collect(connect(server, model=model).generate(CALL, within(5)))
        assert caught.value.kind is kind
    with pytest.raises(AttemptError) as caught:
        await connect(server).infer(InferInput("", {"x": Tensor("bool", (1,), b"\x01")}), within(5))
    assert caught.value.kind is FailureKind.UNSUPPORTED


async def test_an_omitted_model_is_not_guessed_among_several(serve: Serve, connect: Connect) -> None:
    one, other = Scripted("one"), Scripted("other")
    with pytest.raises(AttemptError) as caught:
        await collect(connect(await serve(one, other)).generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
    assert not one.seen
    assert not other.seen


@pytest.mark.parametrize("kind", list(FailureKind))
async def test_a_failure_crosses_the_wire_exactly(kind: FailureKind, serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.failure = AttemptError(kind, "it failed", retry_after=1.25)
    remote = connect(await serve(backend))
    with pytest.raises(AttemptError) as streamed:
        await collect(remote.generate(CALL, within(5)))
    with pytest.raises(AttemptError) as answered:
        await remote.embed(EmbedInput(("a",)), within(5))
    for caught in (streamed, answered):
        assert (caught.value.kind, caught.value.retry_after) == (kind, 1.25)


async def test_a_backend_that_breaks_its_contract_tells_nobody_what_it_saw(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Scripted("m")
    backend.failure = ValueError(SECRET_WORDS)
    server = await serve(backend)
    with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(server.address, "Generate", wire.GenerateRequest(messages=[said("hello")]).SerializeToString())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET_WORDS not in f"{caught.value}"
    assert SECRET_WORDS not in caplog.text
    assert "ValueError" in caplog.text


async def test_a_stream_that_the_backend_cuts_is_truncated(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.cut = True
    with pytest.raises(AttemptError) as caught:
        await collect(connect(await serve(backend)).generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.TRUNCATED


class Keeping(Scripted):
    """Holds on to its streams, so that they end by being closed and not by being forgotten."""

    def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        self.stream = super().generate(call, context)
        return self.stream


async def test_the_backends_stream_is_closed_with_the_call(serve: Serve, connect: Connect) -> None:
    backend = Keeping("m")
    await collect(connect(await serve(backend)).generate(CALL, within(5)))
    await asyncio.wait_for(backend.closed.wait(), 1)


def said(text: str, role: wire.Role = wire.ROLE_USER) -> wire.Message:
    return wire.Message(role=role, text=text)


def tensor(dtype: str, shape: list[int], data: bytes) -> dict[str, wire.Tensor]:
    return {"x": wire.Tensor(dtype=dtype, shape=shape, data=data)}


HELLO = [said("hello")]


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("Generate", wire.GenerateRequest()),
        ("Generate", wire.GenerateRequest(messages=[said("")])),
        ("Generate", wire.GenerateRequest(messages=[said("hello", wire.ROLE_UNSPECIFIED)])),
        ("Generate", wire.GenerateRequest(messages=HELLO, max_output_tokens=0)),
        ("Generate", wire.GenerateRequest(messages=HELLO, temperature=-1.0)),
        ("Generate", wire.GenerateRequest(messages=HELLO, temperature=float("nan"))),
        ("Generate", wire.GenerateRequest(messages=HELLO, top_p=0.0)),
        ("Generate", wire.GenerateRequest(messages=HELLO, stop=[""])),
        ("Generate", wire.GenerateRequest(messages=HELLO, response_format=wire.ResponseFormat())),
        ("Generate", wire.GenerateRequest(messages=HELLO, response_format=wire.ResponseFormat(json_schema="{"))),
        ("Embed", wire.EmbedRequest()),
        ("CountTokens", wire.CountTokensRequest()),
        ("CountTokens", wire.CountTokensRequest(messages=[said("hello", wire.ROLE_UNSPECIFIED)])),
        ("Infer", wire.InferRequest()),
        ("Infer", wire.InferRequest(inputs=tensor("float32", [2, 2], bytes(15)))),
        ("Infer", wire.InferRequest(inputs=tensor("float32", [-1, -4], bytes(16)))),
        ("Infer", wire.InferRequest(inputs=tensor("object", [1], bytes(8)))),
        ("Infer", wire.InferRequest(inputs=tensor("string", [2], b"\x01\x00\x00\x00a"))),
        ("Infer", wire.InferRequest(inputs=tensor("string", [1], b"\xff\xff\xff\xffa"))),
        ("Infer", wire.InferRequest(inputs=tensor("string", [1], b"\x01\x00"))),
        ("Infer", wire.InferRequest(inputs=tensor("string", [1], b"\x01\x00\x00\x00\xff"))),
    ],
)
async def test_bad_input_reaches_no_backend(
    method: str,
    request_message: wire.GenerateRequest | wire.EmbedRequest | wire.CountTokensRequest | wire.InferRequest,
    serve: Serve,
) -> None:
    backend = Scripted("m")
    server = await serve(backend)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(server.address, method, request_message.SerializeToString())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not backend.seen


@pytest.mark.parametrize("method", ["Generate", "Embed", "Classify", "CountTokens", "Infer"])
async def test_garbage_reaches_no_backend(method: str, serve: Serve) -> None:
    backend = Scripted("m")
    server = await serve(backend)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(server.address, method, b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not backend.seen


async def test_what_is_left_out_has_the_cores_defaults(serve: Serve) -> None:
    backend = Scripted("m")
    server = await serve(backend)
    await raw(server.address, "Generate", wire.GenerateRequest(messages=HELLO).SerializeToString())
    assert backend.seen[0][0] == GenerateInput((Message(Role.USER, "hello"),))
