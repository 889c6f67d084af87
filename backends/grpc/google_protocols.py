"""The client's side of Google's two services for its models: the Gemini API, and Vertex AI.

They mean the same by the same names, and number their fields differently. No tools, grounding or caches are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import quote

from google.protobuf import json_format

from ...core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from ...core.content import CountTokensInput, EmbedInput, GenerateInput, Role
from ...core.failure import FailureKind
from ...core.request import Task
from ...protos.foreign import gemini_pb2, vertex_pb2
from ..backend import CallContext
from .settings import Authentication, GrpcSettings
from .tensor_messages import rows_of_floats
from .wire_protocol import Metadata, ReportedFailure, StreamReader, WireProtocol, bearer

_ROLES = {Role.USER: "user", Role.ASSISTANT: "model"}

_REASONS = {"STOP": FinishReason.STOP, "MAX_TOKENS": FinishReason.LENGTH}
_REFUSALS = {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"}


class _GoogleProtocol(WireProtocol):
    """What both have in common."""

    constrains = logprobs = True

    messages: ClassVar[ModuleType]
    """The generated messages: two modules of one shape, which types cannot say."""
    usual_authentication: ClassVar[Authentication]
    """How the service's credentials are shown where nothing is said of them."""
    routed_by_endpoint: ClassVar[frozenset[str]] = frozenset()
    """The methods whose requests name the model as their endpoint."""

    def __init__(self, settings: GrpcSettings) -> None:
        super().__init__(settings)
        self.model = self.resource(self.model)

        given_by_google = settings.credentials_from is not None and settings.credentials_from.google
        default = Authentication.BEARER if given_by_google else self.usual_authentication
        self._authentication = settings.authentication or default

    def resource(self, model: str) -> str:
        """The model's name as the service has it."""
        return model

    def metadata(self, credentials: str | None, path: str) -> Metadata:
        # The front end routes by the model before it reads the message.
        field = "endpoint" if path in self.routed_by_endpoint else "model"
        routing = ("x-goog-request-params", f"{field}={quote(self.model, safe='')}")
        if credentials is not None and self._authentication is Authentication.KEY:
            return ("x-goog-api-key", credentials), routing
        return *bearer(credentials), routing

    def judge(self, task: Task, code: str, details: str) -> FailureKind | None:
        if code != "INVALID_ARGUMENT":
            return None
        if "API key" in details:
            return FailureKind.CREDENTIALS
        return FailureKind.CONTEXT_LENGTH if "token count" in details and "exceeds" in details else None

    def encode_generate(self, call: GenerateInput, context: CallContext, remaining: float) -> bytes:
        wire = self.messages
        config = wire.GenerationConfig(
            candidate_count=1,
            max_output_tokens=call.max_output_tokens,
            temperature=call.temperature,
            top_p=call.top_p,
            seed=call.seed,
            stop_sequences=call.stop,
        )
        if call.logprobs is not None:
            config.response_logprobs = True
            if call.logprobs > 0:
                config.logprobs = call.logprobs
        if call.response_format is not None:
            _constrain(config, call.response_format)
        request = wire.GenerateContentRequest(model=self.model, generation_config=config)
        _add_turns(request, call)
        encoded: bytes = request.SerializeToString()
        return encoded

    def decode_count(self, message: bytes) -> int:
        return int(self.messages.CountTokensResponse.FromString(message).total_tokens)

    def generate_reader(self, call: GenerateInput) -> StreamReader:
        return _ResponseReader(self.messages)


class GeminiProtocol(_GoogleProtocol):
    """`google.ai.generativelanguage.v1beta`: a key, and a pool of machines anywhere."""

    messages: ClassVar[ModuleType] = gemini_pb2
    usual_authentication = Authentication.KEY
    generate_path = "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent"
    embed_path = "/google.ai.generativelanguage.v1beta.GenerativeService/BatchEmbedContents"
    count_path = "/google.ai.generativelanguage.v1beta.GenerativeService/CountTokens"
    most_texts = 100

    def resource(self, model: str) -> str:
        return f"models/{model.removeprefix('models/')}"

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        request = gemini_pb2.BatchEmbedContentsRequest(model=self.model)
        for text in call.texts:
            request.requests.add(model=self.model).content.parts.add(text=text)
        return request.SerializeToString()

    def decode_embed(self, message: bytes) -> Embeddings:
        response = gemini_pb2.BatchEmbedContentsResponse.FromString(message)
        return Embeddings(rows_of_floats([each.values for each in response.embeddings]), model=self.model)

    def encode_count(self, call: CountTokensInput, context: CallContext, remaining: float) -> bytes:
        request = gemini_pb2.CountTokensRequest(model=self.model)
        # As a whole request, because contents alone have no place for the system's turn.
        request.generate_content_request.model = self.model
        _add_turns(request.generate_content_request, call)
        return request.SerializeToString()


class VertexProtocol(_GoogleProtocol):
    """`google.cloud.aiplatform.v1`: a token, and a region's host. ``model`` is the whole resource path."""

    messages: ClassVar[ModuleType] = vertex_pb2
    usual_authentication = Authentication.BEARER
    generate_path = "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent"
    embed_path = "/google.cloud.aiplatform.v1.PredictionService/Predict"
    count_path = "/google.cloud.aiplatform.v1.LlmUtilityService/CountTokens"
    routed_by_endpoint = frozenset({embed_path, count_path})

    def __init__(self, settings: GrpcSettings) -> None:
        super().__init__(settings)
        one_by_one = self.model.rpartition("/")[2].startswith("gemini-embedding")
        self.most_texts = 1 if one_by_one else 250

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        request = vertex_pb2.PredictRequest(endpoint=self.model)
        for text in call.texts:
            request.instances.add().struct_value.fields["content"].string_value = text
        # Otherwise what is too long is cut in silence.
        request.parameters.struct_value.fields["autoTruncate"].bool_value = False
        return request.SerializeToString()

    def decode_embed(self, message: bytes) -> Embeddings:
        rows, tokens = [], 0.0
        for prediction in vertex_pb2.PredictResponse.FromString(message).predictions:
            embeddings = prediction.struct_value.fields["embeddings"].struct_value.fields
            rows.append([value.number_value for value in embeddings["values"].list_value.values])
            tokens += embeddings["statistics"].struct_value.fields["token_count"].number_value
        return Embeddings(rows_of_floats(rows), Usage(int(tokens)), self.model)

    def encode_count(self, call: CountTokensInput, context: CallContext, remaining: float) -> bytes:
        request = vertex_pb2.CountTokensRequest(endpoint=self.model, model=self.model)
        _add_turns(request, call)
        return request.SerializeToString()


class _ResponseReader(StreamReader):
    """Reads responses; the usage of the last one counts."""

    def __init__(self, messages: ModuleType) -> None:
        self._messages = messages
        self._parse = messages.GenerateContentResponse.FromString
        self._usage = Usage()

    def read(self, message: bytes) -> Iterable[GenerateEvent]:
        response = self._parse(message)
        if response.HasField("prompt_feedback") and response.prompt_feedback.block_reason:
            raise ReportedFailure(FailureKind.CONTENT_FILTER)
        if response.HasField("usage_metadata"):
            usage = response.usage_metadata
            self._usage = Usage(usage.prompt_token_count, usage.candidates_token_count + usage.thoughts_token_count)
        events: list[GenerateEvent] = []
        for candidate in response.candidates[:1]:
            text = "".join([part.text for part in candidate.content.parts if not part.thought])
            logprobs = _logprobs(candidate.logprobs_result) if candidate.HasField("logprobs_result") else ()
            if text or logprobs:
                events.append(Delta(text, len(logprobs) or 1, logprobs))
            reason = self._reason(candidate)
            if reason is not None:
                events.append(Finish(reason, self._usage, response.model_version))
        return events

    def _reason(self, candidate: Any) -> FinishReason | None:  # of either module
        if not candidate.finish_reason:
            return None
        names = self._messages.Candidate.FinishReason
        said = names.Name(candidate.finish_reason) if candidate.finish_reason in names.values() else ""
        if said in _REFUSALS:
            raise ReportedFailure(FailureKind.CONTENT_FILTER)
        if said not in _REASONS:  # a reason for tools or images, which were not asked for
            raise ReportedFailure(FailureKind.INTERNAL)
        return _REASONS[said]


def _add_turns(request: Any, call: GenerateInput | CountTokensInput) -> None:  # of either module
    for message in call.messages:
        if message.role is Role.SYSTEM:
            request.system_instruction.parts.add(text=message.text)
        else:
            request.contents.add(role=_ROLES[message.role]).parts.add(text=message.text)


def _constrain(config: Any, asked: Any) -> None:  # of either module; JSON as the caller wrote it
    kind = asked.get("type")
    if kind not in ("json_object", "json_schema"):
        raise ValueError("response_format has a type that this protocol does not know")
    config.response_mime_type = "application/json"
    if kind == "json_schema":
        try:
            json_format.ParseDict(asked.get("schema"), config.response_json_schema)
        except json_format.ParseError:
            raise ValueError("the JSON Schema is no JSON") from None


def _logprobs(result: Any) -> tuple[TokenLogprob, ...]:  # of either module
    top = [tuple((each.token, each.log_probability) for each in one.candidates) for one in result.top_candidates]
    return tuple(
        TokenLogprob(chosen.token, chosen.log_probability, top[at] if at < len(top) else ())
        for at, chosen in enumerate(result.chosen_candidates)
    )
