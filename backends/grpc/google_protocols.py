"""The client's side of Google's two services for its models: the Gemini API, and Vertex AI.

They mean the same by the same names, and number their fields differently. No tools, grounding or caches are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import quote

from google.protobuf import json_format

from ...core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from ...core.content import EmbedInput, GenerateInput, Message, Role, Tensor
from ...core.failure import FailureKind
from ...core.request import Task
from ...protos.foreign import gemini_pb2, vertex_pb2
from ..backend import CallContext
from .settings import Authentication, GrpcSettings
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

    def __init__(self, settings: GrpcSettings) -> None:
        super().__init__(settings)
        self.model = self.resource(self.model)
        # The front end routes by the model before it reads the message.
        self._routing: Metadata = (("x-goog-request-params", f"model={quote(self.model, safe='')}"),)

        given_by_google = settings.credentials_from is not None and settings.credentials_from.google
        default = Authentication.BEARER if given_by_google else self.usual_authentication
        self._authentication = settings.authentication or default

    def resource(self, model: str) -> str:
        """The model's name as the service has it."""
        return model

    def metadata(self, credentials: str | None) -> Metadata:
        if credentials is not None and self._authentication is Authentication.KEY:
            return ("x-goog-api-key", credentials), *self._routing
        return *bearer(credentials), *self._routing

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
        for message in call.messages:
            if message.role is Role.SYSTEM:
                request.system_instruction.parts.add(text=message.text)
            else:
                _add_turn(request, message)
        encoded: bytes = request.SerializeToString()
        return encoded

    def generate_reader(self, call: GenerateInput) -> StreamReader:
        return _ResponseReader(self.messages)


class GeminiProtocol(_GoogleProtocol):
    """`google.ai.generativelanguage.v1beta`: a key, and a pool of machines anywhere."""

    messages: ClassVar[ModuleType] = gemini_pb2
    usual_authentication = Authentication.KEY
    generate_path = "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent"
    embed_path = "/google.ai.generativelanguage.v1beta.GenerativeService/BatchEmbedContents"

    def resource(self, model: str) -> str:
        return f"models/{model.removeprefix('models/')}"

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        request = gemini_pb2.BatchEmbedContentsRequest(model=self.model)
        for text in call.texts:
            request.requests.add(model=self.model).content.parts.add(text=text)
        return request.SerializeToString()

    def decode_embed(self, message: bytes) -> Embeddings:
        rows = [each.values for each in gemini_pb2.BatchEmbedContentsResponse.FromString(message).embeddings]
        width = len(rows[0]) if rows else 0
        if not width or any(len(row) != width for row in rows):
            raise ValueError("embeddings are rows of one width")
        data = b"".join(struct.pack(f"<{width}f", *row) for row in rows)
        return Embeddings(Tensor("float32", (len(rows), width), data), model=self.model)


class VertexProtocol(_GoogleProtocol):
    """`google.cloud.aiplatform.v1`: a token, and a region's host. ``model`` is the whole resource path."""

    messages: ClassVar[ModuleType] = vertex_pb2
    usual_authentication = Authentication.BEARER
    generate_path = "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent"


class _ResponseReader(StreamReader):
    """Reads responses; the usage of the last one counts."""

    def __init__(self, messages: ModuleType) -> None:
        self._messages = messages
        self._usage = Usage()

    def read(self, message: bytes) -> Iterable[GenerateEvent]:
        response = self._messages.GenerateContentResponse.FromString(message)
        if response.prompt_feedback.block_reason:
            raise ReportedFailure(FailureKind.CONTENT_FILTER)
        if response.HasField("usage_metadata"):
            usage = response.usage_metadata
            self._usage = Usage(usage.prompt_token_count, usage.candidates_token_count + usage.thoughts_token_count)
        events: list[GenerateEvent] = []
        for candidate in response.candidates[:1]:
            text = "".join(part.text for part in candidate.content.parts if not part.thought)
            logprobs = _logprobs(candidate.logprobs_result)
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


def _add_turn(request: Any, message: Message) -> None:  # of either module
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
