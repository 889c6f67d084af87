"""The Open Inference Protocol, by our own client for it and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from edgewise.backends import Backend, HealthState
from edgewise.backends.grpc.oip_settings import Dialect, EmbedTensors, OipSettings
from edgewise.backends.grpc.oip_tensors import InputTensor, strings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import EmbedInput, GenerateInput, InferInput, Message, Tensor
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.core.settings import Secret
from edgewise.protos.foreign import oip_pb2 as wire

from .conftest import SECRET_WORDS, Connect, Scripted, Serve, collect, within

SERVICE = "/inference.GRPCInferenceService"
CALL = GenerateInput((Message.user(SECRET_WORDS),), max_output_tokens=5, temperature=0.5, seed=3, stop=("END",))
OIP = {"protocol": ProtocolName.OIP, "model": "m"}


async def test_our_own_client_streams_text(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    remote = connect(await serve(backend), oip=OipSettings(generate="vllm"), tasks=(Task.GENERATE,), **OIP)
    events = await collect(remote.generate(CALL, within(5)))
    assert events == [
        Delta("hello ", 1),
        Delta("there", 2),
        Finish(FinishReason.LENGTH, Usage(7, 3), "m:1"),
    ]
    ((got, context),) = backend.seen
    assert isinstance(got, GenerateInput)
    assert SECRET_WORDS in got.messages[0].text
    assert (got.max_output_tokens, got.temperature, got.seed, got.stop) == (5, 0.5, 3, ("END",))
    assert context.deadline.at <= asyncio.get_running_loop().time() + 5


async def test_our_own_client_gets_an_answer_whole_from_who_cannot_stream(serve: Serve, connect: Connect) -> None:
    settings = OipSettings(generate="vllm", dialect=Dialect.KSERVE)
    remote = connect(await serve(Scripted("m")), oip=settings, tasks=(Task.GENERATE,), **OIP)
    events = await collect(remote.generate(CALL, within(5)))
    assert events == [Delta("hello there", 3), Finish(FinishReason.LENGTH, Usage(7, 3), "m:1")]


async def test_embeddings_and_tensors(serve: Serve, connect: Connect) -> None:
    remote = connect(await serve(Scripted("m")), oip=OipSettings(embed=EmbedTensors()), **OIP)
    assert (await remote.embed(EmbedInput(("a", "b")), within(5))).vectors.shape == (2, 2)
    sent = Tensor("float32", (2, 2), bytes(range(16)))
    back = (await remote.infer(InferInput("m", {"x": sent}), within(5))).outputs["x"]
    assert (back.dtype, back.shape, back.data) == (sent.dtype, sent.shape, sent.data)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("bool", (2,), b"\1\0"),
        Tensor("int8", (2,), b"\xff\1"),
        Tensor("uint64", (1,), b"\xff" * 8),
        Tensor("int64", (), b"\xfe" + b"\xff" * 7),
        Tensor("float64", (0, 3), b""),
        Tensor("string", (2,), strings("hi", "")),
    ],
    ids=repr,
)
async def test_tensors_raw_and_typed(tensor: Tensor, typed: bool, serve: Serve, connect: Connect) -> None:
    remote = connect(await serve(Scripted("m")), oip=OipSettings(typed_contents=typed), **OIP)
    back = (await remote.infer(InferInput("m", {"x": tensor}), within(5))).outputs["x"]
    assert (back.dtype, back.shape, back.data) == (tensor.dtype, tensor.shape, tensor.data)


@pytest.fixture
async def channel(serve: Serve) -> AsyncIterator[grpc.aio.Channel]:
    loading = Scripted("loading")
    loading.state = HealthState.LOADING
    server = await serve(Scripted("m", limit=4), loading)
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel


def asked(model: str = "m", id: str = "", stream: bool = True, **tensors: str) -> bytes:
    request = wire.ModelInferRequest(model_name=model, id=id)
    for name, text in ({"text_input": "hello"} | tensors).items():
        request.inputs.append(InputTensor(name=name, datatype="BYTES", shape=[1]))
        request.raw_input_contents.append(strings(text))
    request.inputs.append(InputTensor(name="stream", datatype="BOOL", shape=[1]))
    request.raw_input_contents.append(bytes([stream]))
    return request.SerializeToString()


async def stream_infer(channel: grpc.aio.Channel, *requests: bytes) -> list[wire.ModelStreamInferResponse]:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    answers = method(iter(requests), timeout=5)
    return [wire.ModelStreamInferResponse.FromString(answer) async for answer in answers]


async def test_requests_of_one_stream_are_answered_apart(channel: grpc.aio.Channel) -> None:
    answers = await stream_infer(channel, asked(id="1"), asked(id="2", model="nobody"), asked(id="3", stream=False))
    said: dict[str, list[wire.ModelStreamInferResponse]] = {}
    for answer in answers:
        said.setdefault(answer.infer_response.id, []).append(answer)
    assert [answer.infer_response.parameters["triton_final_response"].bool_param for answer in said["1"]] == [
        False,
        False,
        True,
    ]
    (failed,) = said["2"]
    assert failed.error_message == "no model of this name is served here"
    (whole,) = said["3"]
    assert whole.infer_response.raw_output_contents[0] == strings("hello there")


@pytest.mark.parametrize(
    "request_bytes",
    [
        asked(sampling_parameters="{"),
        asked(sampling_parameters='{"best_of": 7}'),
        asked(sampling_parameters=json.dumps({"max_tokens": "many"})),
        asked(sampling_parameters=json.dumps({"temperature": -1})),
        asked(sampling_parameters=json.dumps({"stop": [""]})),
        asked(text_input=""),
        asked(surprise="x"),
        wire.ModelInferRequest(model_name="m").SerializeToString(),
        b"\xff\xff\xff",
    ],
)
async def test_bad_input_is_told_what_is_wrong(request_bytes: bytes, channel: grpc.aio.Channel) -> None:
    infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(request_bytes, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (answer,) = await stream_infer(channel, request_bytes)
    assert answer.error_message == caught.value.details()


async def test_numbers_may_be_written_as_strings(serve: Serve) -> None:
    """As Triton's own examples do."""
    backend = Scripted("m")
    server = await serve(backend)
    async with grpc.aio.insecure_channel(server.address) as channel:
        await stream_infer(channel, asked(sampling_parameters='{"temperature": "0.25", "max_tokens": "9"}'))
    got = backend.seen[0][0]
    assert isinstance(got, GenerateInput)
    assert (got.temperature, got.max_output_tokens) == (0.25, 9)


async def test_readiness_and_metadata(channel: grpc.aio.Channel) -> None:
    async def ask(method: str, request: bytes) -> bytes:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/{method}")
        return await call(request, timeout=5)

    assert wire.ServerLiveResponse.FromString(await ask("ServerLive", b"")).live
    assert wire.ServerReadyResponse.FromString(await ask("ServerReady", b"")).ready
    assert wire.ServerMetadataResponse.FromString(await ask("ServerMetadata", b"")).name == "edgewise"
    for model, ready in (("m", True), ("loading", False)):
        request = wire.ModelReadyRequest(name=model).SerializeToString()
        assert wire.ModelReadyResponse.FromString(await ask("ModelReady", request)).ready is ready
    described = wire.ModelMetadataResponse.FromString(
        await ask("ModelMetadata", wire.ModelMetadataRequest(name="m").SerializeToString())
    )
    assert {tensor.name for tensor in described.inputs} >= {"text_input", "stream", "sampling_parameters"}
    assert {tensor.name for tensor in described.outputs} >= {"text_output", "finish_reason"}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask("ModelMetadata", wire.ModelMetadataRequest(name="nobody").SerializeToString())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stream_that_is_left_stops_the_backend(serve: Serve, connect: Connect) -> None:
    backend = Scripted("m")
    backend.hold = asyncio.Event()
    remote = connect(await serve(backend), oip=OipSettings(generate="vllm"), tasks=(Task.GENERATE,), **OIP)
    events = remote.generate(CALL, within(30))
    await anext(events)
    await asyncio.wait_for(backend.started.wait(), 5)
    await events.aclose()
    await asyncio.wait_for(backend.stopped.wait(), 0.1)


async def test_failures_say_what_they_are_and_nothing_of_the_content(serve: Serve, connect: Connect) -> None:
    backend: Scripted | Backend = Scripted("m")
    assert isinstance(backend, Scripted)
    backend.failure = ValueError(SECRET_WORDS)
    server = await serve(backend)
    remote = connect(server, oip=OipSettings(generate="vllm"), tasks=(Task.GENERATE,), **OIP)
    with pytest.raises(AttemptError) as caught:
        await collect(remote.generate(CALL, within(5)))
    assert caught.value.kind is FailureKind.INTERNAL
    async with grpc.aio.insecure_channel(server.address) as channel:
        (answer,) = await stream_infer(channel, asked())
    assert answer.error_message == "the model failed in an unforeseen way"


async def test_the_token_is_wanted_here_too(serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m"), tokens=(Secret("right"),))
    for given, kind in (("wrong", FailureKind.CREDENTIALS), ("right", None)):
        oip = OipSettings(generate="vllm")
        remote = connect(server, oip=oip, tasks=(Task.GENERATE,), credentials=Secret(given), **OIP)
        if kind is None:
            assert await collect(remote.generate(CALL, within(5)))
            continue
        with pytest.raises(AttemptError) as caught:
            await collect(remote.generate(CALL, within(5)))
        assert caught.value.kind is kind


async def test_a_client_that_knows_nothing_calls_by_reflection(channel: grpc.aio.Channel) -> None:
    """As `grpcurl` does: the schema comes from the server, and a call is made by it."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        for service in ("inference.GRPCInferenceService", "edgewise.v1.ModelService"):
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)

    services, *files = [answer async for answer in stub.ServerReflectionInfo(questions(), timeout=5)]
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "edgewise.v1.ModelService", "grpc.health.v1.Health"} <= names
    pool = DescriptorPool()
    for file in files:
        for packed in file.file_descriptor_response.file_descriptor_proto:
            pool.Add(FileDescriptorProto.FromString(packed))
    for service, method, given in (
        ("inference.GRPCInferenceService", "ModelReady", {"name": "m"}),
        ("edgewise.v1.ModelService", "ListModels", {}),
    ):
        described = pool.FindServiceByName(service).FindMethodByName(method)
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{service}/{method}")
        answer = await call(GetMessageClass(described.input_type)(**given).SerializeToString(), timeout=5)
        assert "ready: true" in str(GetMessageClass(described.output_type).FromString(answer))
