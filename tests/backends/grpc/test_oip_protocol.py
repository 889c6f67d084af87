"""The Open Inference Protocol against servers of the real stack, in the forms that its servers differ in."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import numpy
import pytest

from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.chat_format import ChatFormat
from edgewise.backends.grpc.oip_settings import Dialect, EmbedTensors, GenerateTensors, OipSettings
from edgewise.backends.grpc.oip_tensors import strings
from edgewise.backends.grpc.settings import ProtocolName, check
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import EmbedInput, GenerateInput, InferInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.protos.foreign import oip_pb2 as wire
from edgewise.router.config import load

from .conftest import CALL, SECRET_WORDS, collect, within

Output = wire.ModelInferResponse.InferOutputTensor
Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass
class OipServer:
    """Answers both methods with the messages given, or ends the call with a status."""

    messages: list[bytes] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    details: str = ""
    seen: list[wire.ModelInferRequest] = field(default_factory=list)
    answer: Callable[[wire.ModelInferRequest], bytes] | None = None

    async def unary(self, request: bytes, context: Context) -> bytes:
        self.seen.append(wire.ModelInferRequest.FromString(request))
        if self.code is not None:
            await context.abort(self.code, self.details)
        return self.answer(self.seen[-1]) if self.answer is not None else self.messages[0]

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for request in requests:
            self.seen.append(wire.ModelInferRequest.FromString(request))
            for message in self.messages:
                await context.write(message)
        if self.code is not None:
            await context.abort(self.code, self.details)


@dataclass
class Service:
    server: OipServer
    target: str
    backends: list[GrpcBackend] = field(default_factory=list)

    def backend(self, model: str = "m", **oip: object) -> GrpcBackend:
        settings = GrpcSettings(self.target, ProtocolName.OIP, model, oip=OipSettings(**oip))  # type: ignore[arg-type]  # by name
        self.backends.append(GrpcBackend("triton", settings))
        return self.backends[-1]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    answering = OipServer()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(answering.unary),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(answering.stream),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    service = Service(answering, f"127.0.0.1:{port}")
    yield service
    for backend in service.backends:
        await backend.stop()
    await server.stop(0)


def response(raw: bool = True, **texts: str | int) -> wire.ModelInferResponse:
    message = wire.ModelInferResponse(model_name="m", model_version="1")
    for name, value in texts.items():
        if isinstance(value, int):
            message.outputs.append(Output(name=name, datatype="UINT32", shape=[1]))
            message.raw_output_contents.append(struct.pack("<I", value))
        elif raw:
            message.outputs.append(Output(name=name, datatype="BYTES", shape=[1]))
            message.raw_output_contents.append(strings(value))
        else:
            contents = wire.InferTensorContents(bytes_contents=[value.encode()])
            message.outputs.append(Output(name=name, datatype="BYTES", shape=[1], contents=contents))
    return message


def wrapped(message: wire.ModelInferResponse) -> bytes:
    return wire.ModelStreamInferResponse(infer_response=message).SerializeToString()


def echo(request: wire.ModelInferRequest) -> bytes:
    outputs = [Output.FromString(each.SerializeToString()) for each in request.inputs]
    reply = wire.ModelInferResponse(model_name=request.model_name, outputs=outputs)
    reply.raw_output_contents.extend(request.raw_input_contents)
    return reply.SerializeToString()


def tensors_sent(request: wire.ModelInferRequest) -> dict[str, tuple[str, list[int], bytes]]:
    pairs = zip(request.inputs, request.raw_input_contents, strict=True)
    return {each.name: (each.datatype, list(each.shape), raw) for each, raw in pairs}


async def failure_of(backend: GrpcBackend, call: GenerateInput = CALL) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(call, within(5)))
    return caught.value


DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 str"


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES.split())
async def test_tensors_of_every_type_go_there_and_back(service: Service, dtype: str, typed: bool) -> None:
    service.server.answer = echo
    array = numpy.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    backend = service.backend(typed_contents=typed)
    call = InferInput("triage", {"x": to_tensor(array)})
    if typed and dtype == "float16":
        with pytest.raises(AttemptError) as caught:
            await backend.infer(call, within(5))
        assert caught.value.kind is FailureKind.INVALID_REQUEST
        return
    inference = await backend.infer(call, within(5))
    back = to_array(inference.outputs["x"])
    assert (back == array).all()
    assert back.shape == (2, 3)
    assert service.server.seen[0].model_name == inference.model == "triage"
    assert bool(service.server.seen[0].raw_input_contents) is not typed


async def test_brain_floats_arrive_as_float32(service: Service) -> None:
    output = Output(name="y", datatype="BF16", shape=[2])
    reply = wire.ModelInferResponse(outputs=[output], raw_output_contents=[b"\x80\x3f\x00\xc0"])
    service.server.messages = [reply.SerializeToString()]
    inference = await service.backend().infer(InferInput("m", {}), within(5))
    assert to_array(inference.outputs["y"]).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "reply",
    [
        wire.ModelInferResponse(outputs=[Output(name="y", datatype="FP32", shape=[2])], raw_output_contents=[bytes(4)]),
        wire.ModelInferResponse(
            outputs=[Output(name="y", datatype="FP32", shape=[1])], raw_output_contents=[bytes(4)] * 2
        ),
        wire.ModelInferResponse(outputs=[Output(name="y", datatype="FP99", shape=[0])]),
        wire.ModelInferResponse(
            outputs=[Output(name="y", datatype="BYTES", shape=[1])], raw_output_contents=[b"\1\0\0\0\xff"]
        ),
        wire.ModelInferResponse(
            outputs=[
                Output(name="y", datatype="INT8", shape=[1], contents=wire.InferTensorContents(int_contents=[300]))
            ]
        ),
    ],
)
async def test_tensors_that_do_not_fit_are_another_protocol(service: Service, reply: wire.ModelInferResponse) -> None:
    service.server.messages = [reply.SerializeToString()]
    with pytest.raises(AttemptError) as caught:
        await service.backend().infer(InferInput("m", {}), within(5))
    assert caught.value.kind is FailureKind.PROTOCOL


async def test_vllm_gets_its_tensors_and_its_answer_is_read(service: Service) -> None:
    said = [("hello ", "None", 1), ("there", "length", 200)]
    service.server.messages = [
        wrapped(response(text_output=text, finish_reason=reason, num_input_tokens=9, num_output_tokens=count))
        for text, reason, count in said
    ]
    call = GenerateInput((Message.user(SECRET_WORDS),), max_output_tokens=7, seed=3, stop=("\n",), temperature=0.5)
    events = await collect(service.backend(generate="vllm", chat="chatml").generate(call, within(5)))
    assert events == [
        Delta("hello ", 1),
        Delta("there", 200),
        Finish(FinishReason.LENGTH, Usage(9, 201), "m:1"),
    ]
    sent = tensors_sent(service.server.seen[0])
    prompt = f"<|im_start|>user\n{SECRET_WORDS}<|im_end|>\n<|im_start|>assistant\n"
    assert sent["text_input"] == ("BYTES", [1], strings(prompt))
    assert sent["stream"] == sent["exclude_input_in_output"] == sent["return_finish_reason"] == ("BOOL", [1], b"\1")
    parameters = json.loads(sent["sampling_parameters"][2][4:])
    assert parameters == {"max_tokens": 7, "temperature": 0.5, "top_p": 0.95, "seed": 3, "stop": ["\n"]}


async def test_tensorrt_llm_gets_a_tensor_for_each_parameter(service: Service) -> None:
    service.server.messages = [wrapped(response(text_output=text)) for text in ("a", "b")]
    call = GenerateInput((Message.user("hello"),), max_output_tokens=2, seed=3, stop=("x", "y"))
    events = await collect(service.backend(generate="tensorrt_llm").generate(call, within(5)))
    # It gives no reason: as many tokens as it might give mean that they were used up.
    assert events[-1] == Finish(FinishReason.LENGTH, Usage(0, 2), "m:1")
    sent = tensors_sent(service.server.seen[0])
    assert sent["max_tokens"] == ("INT32", [1, 1], struct.pack("<i", 2))
    assert sent["temperature"] == ("FP32", [1, 1], struct.pack("<f", 0.8))
    assert sent["seed"] == ("UINT64", [1, 1], struct.pack("<Q", 3))
    assert sent["stop_words"] == ("BYTES", [1, 2], strings("x", "y"))
    assert sent["stream"] == ("BOOL", [1, 1], b"\1")


async def test_dynamo_gets_nothing_that_it_would_ignore(service: Service) -> None:
    service.server.messages = [wrapped(response(raw=False, text_output="yes", finish_reason="stop"))]
    events = await collect(service.backend(generate="dynamo").generate(CALL, within(5)))
    assert events == [Delta("yes"), Finish(FinishReason.STOP, Usage(0, 1), "m:1")]
    assert set(tensors_sent(service.server.seen[0])) == {"text_input", "streaming"}


@pytest.mark.parametrize("dialect", [Dialect.AUTO, Dialect.MLSERVER])
async def test_mlservers_bare_responses_are_read(service: Service, dialect: Dialect) -> None:
    bare = response(raw=False, text_output="hello")
    bare.id = "7"
    service.server.messages = [bare.SerializeToString()]
    events = await collect(service.backend(generate=GenerateTensors(), dialect=dialect).generate(CALL, within(5)))
    assert events == [Delta("hello"), Finish(FinishReason.STOP, Usage(0, 1), "m:1")]


async def test_a_response_of_bytes_that_are_no_text_is_told_apart_too(service: Service) -> None:
    message = response(text_output="hello")
    message.outputs.append(Output(name="scores", datatype="FP32", shape=[1]))
    message.raw_output_contents.append(struct.pack("<f", -1.7))  # as text, this is not UTF-8
    service.server.messages = [wrapped(message)]
    assert (await collect(service.backend(generate=GenerateTensors()).generate(CALL, within(5))))[0] == Delta("hello")


async def test_kserve_answers_in_one_message(service: Service) -> None:
    service.server.messages = [response(text_output="hello").SerializeToString()]
    backend = service.backend(generate=GenerateTensors(), dialect=Dialect.KSERVE)
    assert (await collect(backend.generate(CALL, within(5))))[0] == Delta("hello")


# What Triton 2.51, MLServer 1.7 and vLLM say.
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"Stub process '{SECRET_WORDS}' is not healthy.", FailureKind.INTERNAL),
        ("Request for unknown model: 'nobody' is not found", FailureKind.MODEL_UNAVAILABLE),
        ("unexpected inference input 'stream' for model 'llm'", FailureKind.UNSUPPORTED),
        ("Exceeds maximum queue size", FailureKind.OVERLOADED),
        ("The prompt (length 9) is longer than the maximum model length of 8", FailureKind.CONTEXT_LENGTH),
    ],
)
async def test_an_error_message_with_a_good_status_is_a_failure(service: Service, text: str, kind: FailureKind) -> None:
    broken = wire.ModelStreamInferResponse(error_message=text, infer_response=wire.ModelInferResponse(id="7"))
    service.server.messages = [wrapped(response(text_output="half ")), broken.SerializeToString()]
    failed = await failure_of(service.backend(generate="vllm"))
    assert failed.kind is kind
    assert "plover" not in repr(failed)
    assert failed.__context__ is failed.__cause__ is None


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNKNOWN, "Model nobody with version  not found", FailureKind.MODEL_UNAVAILABLE),
        (
            grpc.StatusCode.UNAVAILABLE,
            "Request for unknown model: 'nobody' is not found",
            FailureKind.MODEL_UNAVAILABLE,
        ),
        (grpc.StatusCode.NOT_FOUND, "", FailureKind.MODEL_UNAVAILABLE),
        (grpc.StatusCode.UNAVAILABLE, "", FailureKind.UNREACHABLE),
        (grpc.StatusCode.INVALID_ARGUMENT, "expected 2 inputs but got 1 inputs", FailureKind.UNSUPPORTED),
        (grpc.StatusCode.INVALID_ARGUMENT, "", FailureKind.INVALID_REQUEST),
        (grpc.StatusCode.INTERNAL, "deadline of the queue", FailureKind.TIMED_OUT),
    ],
)
async def test_a_status_is_read_with_its_servers_ways(
    service: Service, code: grpc.StatusCode, details: str, kind: FailureKind
) -> None:
    service.server.code, service.server.details = code, details
    assert (await failure_of(service.backend(generate="vllm"))).kind is kind


async def test_wrong_tensors_of_the_callers_own_are_the_callers_mistake(service: Service) -> None:
    service.server.code = grpc.StatusCode.INVALID_ARGUMENT
    service.server.details = "unexpected inference input 'q' for model 'echo'"
    with pytest.raises(AttemptError) as caught:
        await service.backend().infer(InferInput("echo", {}), within(5))
    assert caught.value.kind is FailureKind.INVALID_REQUEST


async def test_a_stream_that_should_give_its_reason_and_does_not_was_cut(service: Service) -> None:
    service.server.messages = [wrapped(response(text_output="half ", finish_reason="None"))]
    assert (await failure_of(service.backend(generate="vllm"))).kind is FailureKind.TRUNCATED


async def test_an_empty_stream_was_cut(service: Service) -> None:
    assert (await failure_of(service.backend(generate=GenerateTensors()))).kind is FailureKind.TRUNCATED


@pytest.mark.parametrize(
    ("reason", "kind"), [("content_filter", FailureKind.CONTENT_FILTER), ("abort", FailureKind.INTERNAL)]
)
async def test_a_reason_that_is_no_good_end_is_a_failure(service: Service, reason: str, kind: FailureKind) -> None:
    service.server.messages = [wrapped(response(text_output="half ", finish_reason=reason))]
    assert (await failure_of(service.backend(generate="vllm"))).kind is kind


async def test_whole_texts_so_far_become_pieces(service: Service) -> None:
    service.server.messages = [wrapped(response(text_output=text)) for text in ("a", "ab", "ab", "abc")]
    backend = service.backend(generate=GenerateTensors(cumulative=True))
    events = await collect(backend.generate(CALL, within(5)))
    assert [event.text for event in events if isinstance(event, Delta)] == ["a", "b", "c"]


@pytest.mark.parametrize(("dtype", "code"), [("FP16", "e"), ("FP32", "f"), ("FP64", "d")])
async def test_texts_are_embedded(service: Service, dtype: str, code: str) -> None:
    output = Output(name="vectors", datatype=dtype, shape=[2, 1, 3])
    raw = struct.pack(f"<6{code}", 0, 1, 2, 3, 4, 5)
    service.server.messages = [wire.ModelInferResponse(outputs=[output], raw_output_contents=[raw]).SerializeToString()]
    backend = service.backend(embed=EmbedTensors("texts", "vectors", batched=True))
    embeddings = await backend.embed(EmbedInput(("a", "b")), within(5))
    assert to_array(embeddings.vectors).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert embeddings.vectors.dtype == "float32"
    assert tensors_sent(service.server.seen[0])["texts"] == ("BYTES", [2, 1], strings("a", "b"))


async def test_only_what_has_tensors_is_offered(service: Service) -> None:
    assert service.backend().capabilities.tasks == {Task.INFER}
    capabilities = service.backend(generate="vllm", embed=EmbedTensors()).capabilities
    assert capabilities.tasks == {Task.GENERATE, Task.EMBED, Task.INFER}
    assert (capabilities.continues, capabilities.constrains, capabilities.logprobs) == (True, False, False)


def test_an_answer_is_continued_exactly() -> None:
    turns = ChatFormat(user="U:{text};", assistant="A:{text};", answer="A:")
    assert turns.prompt([Message.user("a"), Message.assistant("b{text}"), Message.user("c")]) == "U:a;A:b{text};U:c;A:"
    assert turns.prompt([Message.user("a"), Message.assistant("b")]) == "U:a;A:b"


CONFIGURATION = """
version: 1
backends:
  triton:
    kind: grpc
    protocol: oip
    target: TARGET
    model: own
    location: {process_in: [DE]}
    oip:
      generate:
        prompt: QUESTION
        text: ANSWER
        shape: [1, 1]
        max_output_tokens: LIMIT
        datatypes: {LIMIT: INT64}
        always_true: [echo_off]
      chat: {user: "Q: {text}\\n", answer: "A:"}
policy:
  data_classes: {public: {process_in: [any]}}
"""


async def test_a_model_of_ones_own_is_described_in_yaml(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "edgewise.yaml"
    path.write_text(CONFIGURATION.replace("TARGET", service.target))
    entry = load(path).backends["triton"]
    backend = entry.build({})
    assert isinstance(backend, GrpcBackend)
    service.backends.append(backend)
    service.server.messages = [wrapped(response(ANSWER="42"))]
    call = GenerateInput((Message.user("why?"),), max_output_tokens=9)
    assert (await collect(backend.generate(call, within(5))))[0] == Delta("42")
    assert service.server.seen[0].model_name == "own"
    assert tensors_sent(service.server.seen[0]) == {
        "QUESTION": ("BYTES", [1, 1], strings("Q: why?\nA:")),
        "LIMIT": ("INT64", [1, 1], struct.pack("<q", 9)),
        "echo_off": ("BOOL", [1, 1], b"\1"),
    }


def test_mistakes_in_the_section_are_found_together() -> None:
    tensors = GenerateTensors(shape=(2,), datatypes={"limit": "INTEGER"})
    oip = OipSettings(generate=tensors, chat=ChatFormat(user="no place"))
    paths = [problem.path for problem in check(GrpcSettings("localhost:1", ProtocolName.OIP, oip=oip))]
    assert paths == [("oip", "chat", "user"), ("oip", "generate", "datatypes", "limit"), ("oip", "generate", "shape")]
    assert [each.path for each in check(GrpcSettings("localhost:1", oip=OipSettings()))] == [("oip",)]
    only_text = GrpcSettings("localhost:1", ProtocolName.OIP, tasks=(Task.GENERATE,))
    assert [each.path for each in check(only_text)] == [("tasks",)]
