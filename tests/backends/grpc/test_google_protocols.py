"""Gemini and Vertex against a server of the real stack: paths and field numbers are those of their public protos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import ProtocolName, check
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Delta, Finish, FinishReason, TokenLogprob, Usage
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.core.settings import Secret
from edgewise.protos.foreign import gemini_pb2, vertex_pb2

from .conftest import CALL, SECRET_WORDS, collect, within

VERTEX_MODEL = "projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-flash"

NUMBERS: dict[ProtocolName, dict[str, int | tuple[int, ...]]] = {  # in the public protos
    ProtocolName.GEMINI: {
        "model": 1,
        "system": (8, 1, 2),
        "text": (2, 1, 2),
        "role": (2, 2),
        "max_output_tokens": (4, 4),
        "seed": (4, 8),
        "stop": (4, 2),
        "mime": (4, 13),
        "logprobs": (4, 18),
    },
    ProtocolName.VERTEX: {
        "model": 5,
        "system": (8, 2, 1),
        "text": (2, 2, 1),
        "role": (2, 1),
        "max_output_tokens": (4, 5),
        "seed": (4, 12),
        "stop": (4, 6),
        "mime": (4, 13),
        "logprobs": (4, 7),
    },
}


def fields(message: bytes) -> dict[int, Any]:
    """The last value of each field number, read without a schema."""
    found: dict[int, Any] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            found[tag >> 3] = varint()
        elif tag & 7 == 5:
            found[tag >> 3], at = message[at : at + 4], at + 4
        else:
            length = varint()
            found[tag >> 3], at = message[at : at + length], at + length
    return found


def at(message: bytes, path: int | tuple[int, ...]) -> Any:
    value: Any = message
    for number in (path,) if isinstance(path, int) else path:
        value = fields(value)[number]
    return value


@dataclass
class Google:
    target: str = ""
    messages: list[bytes] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    details: str = ""
    seen: list[tuple[bytes, dict[str, str | bytes]]] = field(default_factory=list)
    backends: list[GrpcBackend] = field(default_factory=list)

    async def stream(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.seen.append((request, dict(context.invocation_metadata() or ())))
        for message in self.messages:
            await context.write(message)
        if self.code is not None:
            await context.abort(self.code, self.details)

    async def unary(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.seen.append((request, dict(context.invocation_metadata() or ())))
        return self.messages[0]

    def backend(self, protocol: ProtocolName) -> GrpcBackend:
        model = VERTEX_MODEL if protocol is ProtocolName.VERTEX else "gemini-2.5-flash"
        settings = GrpcSettings(self.target, protocol, model, credentials=Secret("key-1"))
        self.backends.append(GrpcBackend("google", settings))
        return self.backends[-1]


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    google = Google()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    stream: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(google.stream)
    unary: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(google.unary)
    services: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {
        "google.ai.generativelanguage.v1beta.GenerativeService": {
            "StreamGenerateContent": stream,
            "BatchEmbedContents": unary,
        },
        "google.cloud.aiplatform.v1.PredictionService": {"StreamGenerateContent": stream},
    }
    for name, handlers in services.items():
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    google.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield google
    for backend in google.backends:
        await backend.stop()
    await server.stop(0)


BOTH = pytest.mark.parametrize(
    ("protocol", "wire"), [(ProtocolName.GEMINI, gemini_pb2), (ProtocolName.VERTEX, vertex_pb2)]
)


def piece(wire: Any, text: str = "", reason: str = "FINISH_REASON_UNSPECIFIED", thought: bool = False) -> Any:
    content = wire.Content(parts=[wire.Part(text=text, thought=thought)])
    usage = wire.GenerateContentResponse.UsageMetadata(
        prompt_token_count=3, candidates_token_count=2, thoughts_token_count=4
    )
    return wire.GenerateContentResponse(
        candidates=[wire.Candidate(content=content, finish_reason=wire.Candidate.FinishReason.Value(reason))],
        usage_metadata=usage,
        model_version="flash-1",
    )


async def failure_of(backend: GrpcBackend, call: GenerateInput = CALL) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await collect(backend.generate(call, within(5)))
    assert "plover" not in repr(caught.value)
    return caught.value


@BOTH
async def test_an_answer_is_read_without_the_thoughts(google: Google, protocol: ProtocolName, wire: Any) -> None:
    said = [piece(wire, "hm", thought=True), piece(wire, "hello "), piece(wire, "there", "MAX_TOKENS")]
    google.messages = [each.SerializeToString() for each in said]
    events = await collect(google.backend(protocol).generate(CALL, within(5)))
    assert events == [Delta("hello "), Delta("there"), Finish(FinishReason.LENGTH, Usage(3, 6), "flash-1")]


@BOTH
async def test_the_server_gets_every_field_at_its_number(google: Google, protocol: ProtocolName, wire: Any) -> None:
    google.messages = [piece(wire, "a", "STOP").SerializeToString()]
    call = GenerateInput(
        (Message.system("short"), Message.user("hello"), Message.assistant("yes?"), Message.user(SECRET_WORDS)),
        max_output_tokens=5,
        seed=7,
        stop=("END",),
        logprobs=2,
        response_format={"type": "json_schema", "schema": {"type": "object"}},
    )
    await collect(google.backend(protocol).generate(call, within(5)))
    ((request, metadata),) = google.seen
    number = NUMBERS[protocol]
    model = VERTEX_MODEL if protocol is ProtocolName.VERTEX else "models/gemini-2.5-flash"
    assert at(request, number["model"]) == model.encode()
    assert at(request, number["system"]) == b"short"
    assert at(request, number["text"]) == SECRET_WORDS.encode()
    assert at(request, number["role"]) == b"user"
    assert at(request, number["stop"]) == b"END"
    assert at(request, number["mime"]) == b"application/json"
    asked = [at(request, number[name]) for name in ("max_output_tokens", "seed", "logprobs")]
    assert asked == [5, 7, 2]
    # Nothing else is turned on: no tools, no safety settings, no caches.
    used = {number["model"], 2, 4, 8}
    assert set(fields(request)) == used
    assert metadata["x-goog-request-params"] == "model=" + model.replace("/", "%2F")
    assert SECRET_WORDS not in repr(metadata)
    if protocol is ProtocolName.GEMINI:
        assert metadata["x-goog-api-key"] == "key-1"
        assert "authorization" not in metadata
    else:
        assert metadata["authorization"] == "Bearer key-1"


@BOTH
async def test_log_probabilities_are_read(google: Google, protocol: ProtocolName, wire: Any) -> None:
    response = piece(wire, "hi", "STOP")
    result = response.candidates[0].logprobs_result
    result.chosen_candidates.add(token="hi", log_probability=-0.5)
    result.top_candidates.add().candidates.add(token="ho", log_probability=-1.5)
    google.messages = [response.SerializeToString()]
    events = await collect(google.backend(protocol).generate(replace(CALL, logprobs=1), within(5)))
    assert events[0] == Delta("hi", 1, (TokenLogprob("hi", -0.5, (("ho", -1.5),)),))


@BOTH
@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("SAFETY", FailureKind.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FailureKind.CONTENT_FILTER),
        ("SPII", FailureKind.CONTENT_FILTER),
        ("OTHER", FailureKind.INTERNAL),
        ("FINISH_REASON_UNSPECIFIED", FailureKind.TRUNCATED),
    ],
)
async def test_a_reason_that_is_no_good_end_is_a_failure(
    google: Google, protocol: ProtocolName, wire: Any, reason: str, kind: FailureKind
) -> None:
    google.messages = [piece(wire, "half ", reason).SerializeToString()]
    assert (await failure_of(google.backend(protocol))).kind is kind


@BOTH
async def test_a_refused_prompt_is_a_content_filter(google: Google, protocol: ProtocolName, wire: Any) -> None:
    feedback = wire.GenerateContentResponse.PromptFeedback(block_reason=1)
    google.messages = [wire.GenerateContentResponse(prompt_feedback=feedback).SerializeToString()]
    assert (await failure_of(google.backend(protocol))).kind is FailureKind.CONTENT_FILTER


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", FailureKind.CREDENTIALS),
        (
            "INVALID_ARGUMENT",
            f"{SECRET_WORDS}: the input token count (9) exceeds the maximum number of tokens allowed (8).",
            FailureKind.CONTEXT_LENGTH,
        ),
        ("INVALID_ARGUMENT", "", FailureKind.INVALID_REQUEST),
        ("RESOURCE_EXHAUSTED", "", FailureKind.OVERLOADED),
        ("NOT_FOUND", "", FailureKind.MODEL_UNAVAILABLE),
        ("UNAUTHENTICATED", "", FailureKind.CREDENTIALS),
    ],
)
async def test_a_status_is_read_with_googles_ways(google: Google, code: str, details: str, kind: FailureKind) -> None:
    google.code, google.details = grpc.StatusCode[code], details
    for protocol in (ProtocolName.GEMINI, ProtocolName.VERTEX):
        assert (await failure_of(google.backend(protocol))).kind is kind


async def test_gemini_embeds(google: Google) -> None:
    rows = [gemini_pb2.ContentEmbedding(values=values) for values in ([1, 2], [3, 4])]
    google.messages = [gemini_pb2.BatchEmbedContentsResponse(embeddings=rows).SerializeToString()]
    embeddings = await google.backend(ProtocolName.GEMINI).embed(EmbedInput(("a", "b")), within(5))
    assert to_array(embeddings.vectors).tolist() == [[1, 2], [3, 4]]
    request, _ = google.seen[0]
    assert at(request, (2, 2, 1, 2)) == b"b"
    assert at(request, (2, 1)) == at(request, 1) == b"models/gemini-2.5-flash"


@BOTH
async def test_what_cannot_be_sent_is_refused(google: Google, protocol: ProtocolName, wire: Any) -> None:
    for wrong in (
        replace(CALL, seed=2**40),
        replace(CALL, response_format={"type": "grammar", "grammar": SECRET_WORDS}),
        replace(CALL, response_format={"type": "json_schema", "schema": {SECRET_WORDS: {1}}}),
    ):
        assert (await failure_of(google.backend(protocol), wrong)).kind is FailureKind.INVALID_REQUEST
    assert google.seen == []


def test_what_each_can_do_is_known() -> None:
    def tasks(protocol: ProtocolName) -> frozenset[Task]:
        return GrpcBackend("google", GrpcSettings("localhost:1", protocol, "m")).capabilities.tasks

    assert tasks(ProtocolName.GEMINI) == {Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS}
    assert tasks(ProtocolName.VERTEX) == {Task.GENERATE, Task.EMBED, Task.COUNT_TOKENS}
    for protocol in (ProtocolName.GEMINI, ProtocolName.VERTEX):
        assert [problem.path for problem in check(GrpcSettings("localhost:1", protocol))] == [("model",)]
