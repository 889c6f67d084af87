"""The client's side of `edgewise.v1.ModelService`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ...core.answer import (
    Classification,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    GenerateEvent,
    Inference,
    TokenLogprob,
    Usage,
)
from ...core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput, Message, Role
from ...core.request import Priority
from ...protos.v1 import model_service_pb2 as wire
from ..backend import CallContext
from .tensor_messages import from_message, to_message
from .wire_protocol import Metadata, StreamReader, WireProtocol, bearer

_SERVICE = "/edgewise.v1.ModelService"

_ROLES = {Role.SYSTEM: wire.ROLE_SYSTEM, Role.USER: wire.ROLE_USER, Role.ASSISTANT: wire.ROLE_ASSISTANT}

_PRIORITIES = {
    Priority.LOW: wire.PRIORITY_LOW,
    Priority.NORMAL: wire.PRIORITY_NORMAL,
    Priority.HIGH: wire.PRIORITY_HIGH,
}

_REASONS: dict[int, FinishReason] = {
    wire.FINISH_REASON_STOP: FinishReason.STOP,
    wire.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}

_UINT32_MAX = 2**32 - 1


class EdgewiseProtocol(WireProtocol):
    """What `edgewise serve` speaks."""

    generate_path = f"{_SERVICE}/Generate"
    resume_path = f"{_SERVICE}/Resume"
    release_path = f"{_SERVICE}/Release"
    handshake_path = f"{_SERVICE}/Handshake"
    embed_path = f"{_SERVICE}/Embed"
    classify_path = f"{_SERVICE}/Classify"
    count_path = f"{_SERVICE}/CountTokens"
    infer_path = f"{_SERVICE}/Infer"
    continues = constrains = logprobs = resumes = True

    def metadata(self, credentials: str | None, path: str) -> Metadata:
        return bearer(credentials)

    def encode_generate(self, call: GenerateInput, context: CallContext, remaining: float) -> bytes:
        request = wire.GenerateRequest(
            model=self.model,
            call=_call_info(context, remaining, context.stream),
            messages=map(_message, call.messages),
            max_output_tokens=call.max_output_tokens,
            temperature=call.temperature,
            top_p=call.top_p,
            seed=call.seed,
            stop=call.stop,
            response_format=_response_format(call.response_format),
            logprobs=call.logprobs,
        )
        return request.SerializeToString()

    def generate_reader(self, call: GenerateInput) -> StreamReader:
        return _EventReader(0)

    def encode_resume(self, stream: str, after: int) -> bytes:
        return wire.ResumeRequest(stream=stream, after=after).SerializeToString()

    def resume_reader(self, after: int) -> StreamReader:
        return _EventReader(after)

    def encode_release(self, stream: str) -> bytes:
        return wire.ReleaseRequest(stream=stream).SerializeToString()

    def encode_handshake(self, context: CallContext) -> bytes:
        return wire.HandshakeRequest(model=self.model, permitted=_permitted(context)).SerializeToString()

    def decode_handshake(self, message: bytes) -> str:
        return wire.HandshakeResponse.FromString(message).place

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        request = wire.EmbedRequest(model=self.model, call=_call_info(context, remaining), texts=call.texts)
        return request.SerializeToString()

    def decode_embed(self, message: bytes) -> Embeddings:
        response = wire.EmbedResponse.FromString(message)
        vectors = from_message(response.vectors)
        if vectors.dtype != "float32" or len(vectors.shape) != 2:
            raise ValueError("embeddings are float32 [n, d]")
        return Embeddings(vectors, _usage(response.usage), response.origin.model, response.origin.place)

    def encode_classify(self, call: ClassifyInput, context: CallContext, remaining: float) -> bytes:
        request = wire.ClassifyRequest(model=self.model, call=_call_info(context, remaining), texts=call.texts)
        return request.SerializeToString()

    def decode_classify(self, message: bytes) -> Classification:
        response = wire.ClassifyResponse.FromString(message)
        scores, labels = from_message(response.scores), tuple(response.labels)
        if scores.dtype != "float32" or scores.shape[1:] != (len(labels),):
            raise ValueError("scores are float32 [n, labels]")
        origin = response.origin
        return Classification(labels, scores, _usage(response.usage), origin.model, origin.place)

    def encode_count(self, call: CountTokensInput, context: CallContext, remaining: float) -> bytes:
        info, messages = _call_info(context, remaining), map(_message, call.messages)
        return wire.CountTokensRequest(model=self.model, call=info, messages=messages).SerializeToString()

    def decode_count(self, message: bytes) -> int:
        response = wire.CountTokensResponse.FromString(message)
        if not response.HasField("tokens"):
            raise ValueError("there is no count")
        return response.tokens

    def encode_infer(self, call: InferInput, context: CallContext, remaining: float) -> bytes:
        request = wire.InferRequest(
            model=call.model or self.model,
            call=_call_info(context, remaining),
            inputs={name: to_message(tensor) for name, tensor in call.inputs.items()},
        )
        return request.SerializeToString()

    def decode_infer(self, message: bytes) -> Inference:
        response = wire.InferResponse.FromString(message)
        outputs = {name: from_message(tensor) for name, tensor in response.outputs.items()}
        return Inference(outputs, response.origin.model, response.origin.place)


class _EventReader(StreamReader):
    """The messages are the events themselves, numbered; ``last`` is the number of the one before."""

    def __init__(self, last: int) -> None:
        self._last = last

    def read(self, message: bytes) -> Iterable[GenerateEvent]:
        response = wire.GenerateResponse.FromString(message)
        if response.sequence:  # servers that cannot resume count nothing
            self._last += 1
            if response.sequence != self._last:
                raise ValueError("a message of the stream is missing, or came twice")
        event = response.WhichOneof("event")
        if event == "delta":
            delta = response.delta
            logprobs = tuple(map(_token_logprob, delta.logprobs)) if delta.logprobs else ()
            return (Delta(delta.text, delta.tokens, logprobs),)
        if event == "finish":
            return _finish(response.finish)
        return ()  # a kind of event that a newer server knows


def _finish(finish: wire.Finish) -> Iterable[GenerateEvent]:
    reason = _REASONS.get(finish.reason)
    if reason is None:
        return ()  # no reason is no finish: the stream counts as cut
    origin = finish.origin
    queue_depth = origin.load.queue_depth if origin.load.HasField("queue_depth") else None
    return (Finish(reason, _usage(finish.usage), origin.model, origin.place, queue_depth),)


def _message(message: Message) -> wire.Message:
    return wire.Message(role=_ROLES[message.role], text=message.text)


def _call_info(context: CallContext, remaining: float, stream: str = "") -> wire.CallInfo:
    return wire.CallInfo(
        request_id=context.request_id,
        idempotency_key=context.idempotency_key,
        attempt=context.attempt,
        priority=_PRIORITIES[context.priority],
        data_classes=context.data_classes,
        budgets=_budgets(context, remaining),
        stream=stream,
        permitted=_permitted(context),
    )


def _permitted(context: CallContext) -> wire.PermittedPlaces | None:
    places = context.bounds.places
    return None if places is None else wire.PermittedPlaces(places=sorted(places))


def _budgets(context: CallContext, remaining: float) -> wire.Budgets:
    """All as they are now, though the context knows instants only: what remains to its deadline says when that is."""
    budgets = wire.Budgets(total_ms=_ms(remaining))
    if context.first_by is not None:
        budgets.first_token_ms = _ms(remaining + context.first_by.at - context.deadline.at)
    if context.start_by is not None:
        budgets.queue_ms = _ms(remaining + context.start_by.at - context.deadline.at)
    return budgets


def _ms(seconds: float) -> int:
    return int(min(max(seconds, 0.0) * 1000, _UINT32_MAX))


def _response_format(asked: Mapping[str, Any] | None) -> wire.ResponseFormat | None:
    if asked is None:
        return None
    kind = asked.get("type")
    if kind == "json_object":
        return wire.ResponseFormat(json_object=wire.ResponseFormat.JsonObject())
    if kind == "json_schema":
        return wire.ResponseFormat(json_schema=json.dumps(asked.get("schema")))
    if kind == "grammar":
        return wire.ResponseFormat(grammar=asked.get("grammar"))
    raise ValueError("response_format has a type that this protocol does not know")


def _usage(usage: wire.Usage) -> Usage:
    return Usage(usage.prompt_tokens, usage.output_tokens)


def _token_logprob(token: wire.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(token.token, token.logprob, tuple((other.token, other.logprob) for other in token.top))
