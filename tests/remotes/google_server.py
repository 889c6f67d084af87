"""Gemini and Vertex by their public protos: they check keys, routing, fields and numbers, and know one model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet

from edgewise.backends.grpc.settings import ProtocolName
from edgewise.protos.foreign import gemini_pb2, vertex_pb2

from .counting import BrokenError, FullError, TooLongError, vector
from .service import Context, Handlers, Service

KEY = "key-plover-1"
REGION = "projects/p/locations/europe-west4/publishers/google/models/"
MODELS = {ProtocolName.GEMINI: "models/gemini-2.5-flash", ProtocolName.VERTEX: REGION + "gemini-2.5-flash"}
EMBED_MODELS = {
    ProtocolName.GEMINI: "models/gemini-2.5-flash",
    ProtocolName.VERTEX: REGION + "text-embedding-005",
}
ONE_BY_ONE = REGION + "gemini-embedding-001"
MOST_TEXTS = {ProtocolName.GEMINI: 100, ProtocolName.VERTEX: 250}
WIRE: dict[ProtocolName, ModuleType] = {ProtocolName.GEMINI: gemini_pb2, ProtocolName.VERTEX: vertex_pb2}

GEMINI = "google.ai.generativelanguage.v1beta.GenerativeService"
VERTEX = "google.cloud.aiplatform.v1"

Methods = dict[str, Any]


class RefusedError(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class GoogleServer(Service):
    """One of the two. ``finish`` and ``blocked`` have it end otherwise than well."""

    protocol: ProtocolName
    key: str = KEY
    finish: str = ""
    blocked: bool = False
    seen: list[Any] = field(default_factory=list)  # messages of either module
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.wire: Any = WIRE[self.protocol]

    def handlers(self) -> Handlers:
        generate: Methods = {
            "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(self.stream),
            "GenerateContent": grpc.unary_unary_rpc_method_handler(self.whole),
        }
        count: Methods = {"CountTokens": grpc.unary_unary_rpc_method_handler(self.count)}
        if self.protocol is ProtocolName.GEMINI:
            embed: Methods = {"BatchEmbedContents": grpc.unary_unary_rpc_method_handler(self.batch_embed)}
            return {GEMINI: {**generate, **count, **embed}}
        predict: Methods = {"Predict": grpc.unary_unary_rpc_method_handler(self.predict)}
        return {f"{VERTEX}.PredictionService": {**generate, **predict}, f"{VERTEX}.LlmUtilityService": count}

    async def stream(self, message: bytes, context: Context) -> None:
        try:
            request = self._read(self.wire.GenerateContentRequest, message, context, "model")
            async for response in self._responses(request):
                await context.write(response.SerializeToString())
        except RefusedError as refused:
            code, text = refused.code, str(refused)
        except BrokenError as broken:
            code, text = grpc.StatusCode.INTERNAL, str(broken)
        else:
            return
        await context.abort(code, text)

    async def whole(self, message: bytes, context: Context) -> bytes:
        request = self._read(self.wire.GenerateContentRequest, message, context, "model")
        responses = [each async for each in self._responses(request)]
        answer = responses[-1]
        text = "".join(part.text for each in responses for part in each.candidates[0].content.parts)
        answer.candidates[0].content.ClearField("parts")
        answer.candidates[0].content.parts.add(text=text)
        return bytes(answer.SerializeToString())

    async def count(self, message: bytes, context: Context) -> bytes:
        return await self._unary(message, context, self.wire.CountTokensRequest, self._counted)

    async def batch_embed(self, message: bytes, context: Context) -> bytes:
        return await self._unary(message, context, gemini_pb2.BatchEmbedContentsRequest, self._embedded)

    async def predict(self, message: bytes, context: Context) -> bytes:
        return await self._unary(message, context, vertex_pb2.PredictRequest, self._predicted, "endpoint")

    async def _unary(self, message: bytes, context: Context, kind: Any, answer: Any, routed_by: str = "model") -> bytes:
        try:
            if kind is vertex_pb2.CountTokensRequest:
                routed_by = "endpoint"
            return bytes(answer(self._read(kind, message, context, routed_by)).SerializeToString())
        except RefusedError as refused:
            code, text = refused.code, str(refused)
        await context.abort(code, text)
        raise AssertionError("unreachable")

    def _read(self, kind: Any, message: bytes, context: Context, routed_by: str) -> Any:
        """A request, with all that a front end looks at: the key, the routing, and no field that nobody asked for."""
        request = kind.FromString(message)
        metadata = dict(context.invocation_metadata() or ())
        self.seen.append(request)
        self.metadata.append(metadata)
        if metadata.get("authorization") != f"Bearer {self.key}" and metadata.get("x-goog-api-key") != self.key:
            if "x-goog-api-key" in metadata:
                text = "API key not valid. Please pass a valid API key."
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")
        name = getattr(request, routed_by)
        if unquote(str(metadata.get("x-goog-request-params", ""))) != f"{routed_by}={name}":
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the request is not routed by its model")
        if _unknown(request):
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "a field that was not asked for")
        if name not in (MODELS[self.protocol], EMBED_MODELS[self.protocol], ONE_BY_ONE):
            raise RefusedError(grpc.StatusCode.NOT_FOUND, f"{name} is not found")
        return request

    async def _responses(self, request: Any) -> AsyncIterator[Any]:
        config = request.generation_config
        prompt = _text(request.contents) + _text([request.system_instruction])
        form = ""
        if config.response_mime_type == "application/json":
            form = _form(config)
        if self.blocked:
            feedback = self.wire.GenerateContentResponse.PromptFeedback(block_reason=1)
            yield self.wire.GenerateContentResponse(prompt_feedback=feedback)
            return
        words = self.model.words(prompt, config.max_output_tokens, stop=config.stop_sequences, form=form)
        number = 0
        try:
            async for piece, reason in words:
                number += 1
                response = self.wire.GenerateContentResponse(model_version="gemini-2.5-flash-001")
                candidate = response.candidates.add()
                candidate.content.role = "model"
                candidate.content.parts.add(text=piece)
                if config.response_logprobs:
                    candidate.logprobs_result.chosen_candidates.add(token=piece, log_probability=-0.25)
                    top = candidate.logprobs_result.top_candidates.add()
                    for at in range(config.logprobs):
                        top.candidates.add(token=f"other-{at}", log_probability=-1.0 - at)
                if reason is not None:
                    said = self.finish or {"stop": "STOP", "length": "MAX_TOKENS"}[reason]
                    candidate.finish_reason = self.wire.Candidate.FinishReason.Value(said)
                    response.usage_metadata.prompt_token_count = self._tokens(request)
                    response.usage_metadata.candidates_token_count = number
                yield response
        except FullError:
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Resource has been exhausted") from None
        except TooLongError:
            text = "The input token count (9000) exceeds the maximum number of tokens allowed (4096)."
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text) from None

    def _counted(self, request: Any) -> Any:
        inner = request.generate_content_request if self.protocol is ProtocolName.GEMINI else request
        if self.protocol is ProtocolName.VERTEX and request.model != request.endpoint:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the model is missing")
        return self.wire.CountTokensResponse(total_tokens=self._tokens(inner))

    @staticmethod
    def _tokens(request: Any) -> int:
        return len(_text([*request.contents, request.system_instruction]).split())

    def _embedded(self, request: Any) -> Any:
        if not request.requests or len(request.requests) > MOST_TEXTS[self.protocol]:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "at most 100 requests can be in one batch")
        response = gemini_pb2.BatchEmbedContentsResponse()
        for each in request.requests:
            if each.model != request.model:
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the models of a batch must be its own")
            response.embeddings.add(values=vector(_text([each.content])))
        return response

    def _predicted(self, request: Any) -> Any:
        most = 1 if request.endpoint == ONE_BY_ONE else MOST_TEXTS[self.protocol]
        instances = [json_format.MessageToDict(each) for each in request.instances]
        if not instances or len(instances) > most or request.endpoint == MODELS[self.protocol]:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"{len(instances)} instance(s) is not allowed")
        if json_format.MessageToDict(request.parameters) != {"autoTruncate": False}:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "too long texts would be cut in silence")
        response = vertex_pb2.PredictResponse(deployed_model_id="7", model=request.endpoint)
        for each in instances:
            text = each["content"]
            embeddings = {"values": vector(text), "statistics": {"token_count": len(text.split()), "truncated": False}}
            json_format.ParseDict({"embeddings": embeddings}, response.predictions.add())
        return response


def _form(config: Any) -> str:
    """An answer in the form asked for: an object whose every property is true."""
    given = config.HasField("response_json_schema")
    schema: Any = json_format.MessageToDict(config.response_json_schema) if given else {}
    return json.dumps(dict.fromkeys(schema.get("properties", {}) if isinstance(schema, dict) else {}, True))


def _text(contents: Sequence[Any]) -> str:
    return " ".join(part.text for content in contents for part in content.parts)


def _unknown(message: Any) -> bool:
    """Whether a message, or one inside it, has a field that the protos here do not: tools, safety settings, caches."""
    if len(UnknownFieldSet(message)):
        return True
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.full_name.startswith("google.protobuf."):
            continue
        for inner in value if _is_list(value) else [value]:
            if _unknown(inner):
                return True
    return False


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not hasattr(value, "DESCRIPTOR")
