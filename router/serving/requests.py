"""Requests as they arrive: parsed, judged, and turned into core types before anything is done with them."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage

from ...backends import CallContext
from ...backends.grpc.tensor_messages import from_message
from ...core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput, Message, Role
from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority
from ...protos.v1 import model_service_pb2 as wire

M = TypeVar("M", bound=ProtobufMessage)

LONGEST_CALL = 600.0
"""Seconds that a backend is told it has for a call that brings no deadline."""

_ROLES: dict[int, Role] = {
    wire.ROLE_SYSTEM: Role.SYSTEM,
    wire.ROLE_USER: Role.USER,
    wire.ROLE_ASSISTANT: Role.ASSISTANT,
}

_PRIORITIES: dict[int, Priority] = {
    wire.PRIORITY_LOW: Priority.LOW,
    wire.PRIORITY_HIGH: Priority.HIGH,
}


def parse(message_type: type[M], data: bytes) -> M:
    """The message in ``data``. Like everything here, raises `AttemptError` (invalid request), without content."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        pass
    raise _invalid("the message cannot be read")


def call_context(info: wire.CallInfo, remaining: float | None, now: float) -> CallContext:
    """What goes with the call. ``remaining`` is gRPC's own deadline in seconds; ``now`` is on the loop's clock."""
    budgets = info.budgets
    return CallContext(
        request_id=info.request_id or secrets.token_hex(8),
        deadline=Deadline.after(now, LONGEST_CALL if remaining is None else remaining),
        data_classes=tuple(info.data_classes),
        priority=_PRIORITIES.get(info.priority, Priority.NORMAL),
        idempotency_key=info.idempotency_key,
        attempt=max(1, info.attempt),
        stream=info.stream,
        start_by=_after(now, budgets.queue_ms) if budgets.HasField("queue_ms") else None,
        first_by=_after(now, budgets.first_token_ms) if budgets.HasField("first_token_ms") else None,
    )


def _after(now: float, milliseconds: int) -> Deadline:
    return Deadline.after(now, milliseconds / 1000)


def refuse_elsewhere(permitted: wire.PermittedPlaces, place: str) -> None:
    """Raise `AttemptError` (wrong place, or place unknown) unless this server is known to be at a permitted one."""
    if not place:
        sentence = (
            "this call may not be processed everywhere, and this server was not told where it is; set `serve.place`"
        )
        raise AttemptError(FailureKind.PLACE_UNKNOWN, sentence)
    if place not in permitted.places:
        raise AttemptError(FailureKind.WRONG_PLACE, f"this server is at {place}, where this call may not be processed")


def generate_input(request: wire.GenerateRequest) -> GenerateInput:
    """The content of a request to generate. What it leaves out has the defaults of the core's type."""
    messages = tuple(_message(message) for message in request.messages)
    if not any(message.text for message in messages):
        raise _invalid("there is nothing to answer: every message is empty")
    given: dict[str, Any] = {}  # by the names of GenerateInput's fields, so that its defaults stay in one place
    if request.HasField("max_output_tokens"):
        given["max_output_tokens"] = _sound(request.max_output_tokens, request.max_output_tokens > 0)
    if request.HasField("temperature"):
        given["temperature"] = _sound(request.temperature, 0.0 <= request.temperature < math.inf)
    if request.HasField("top_p"):
        given["top_p"] = _sound(request.top_p, 0.0 < request.top_p <= 1.0)
    if request.HasField("seed"):
        given["seed"] = request.seed
    if request.HasField("logprobs"):
        given["logprobs"] = request.logprobs
    if request.HasField("response_format"):
        given["response_format"] = _response_format(request.response_format)
    if not all(request.stop):
        raise _invalid("a stop sequence is empty")
    return GenerateInput(messages, stop=tuple(request.stop), **given)


def embed_input(request: wire.EmbedRequest) -> EmbedInput:
    """The content of a request to embed."""
    if not request.texts:
        raise _invalid("there are no texts to embed")
    return EmbedInput(tuple(request.texts))


def classify_input(request: wire.ClassifyRequest) -> ClassifyInput:
    """The content of a request to classify."""
    if not request.texts:
        raise _invalid("there are no texts to classify")
    return ClassifyInput(tuple(request.texts))


def count_input(request: wire.CountTokensRequest) -> CountTokensInput:
    """The content of a request to count."""
    if not request.messages:
        raise _invalid("there are no messages to count")
    return CountTokensInput(tuple(_message(message) for message in request.messages))


def infer_input(request: wire.InferRequest, model: str) -> InferInput:
    """The content of a request to infer, for the model that was chosen."""
    if not request.inputs:
        raise _invalid("there are no input tensors")
    try:
        return InferInput(model, {name: from_message(tensor) for name, tensor in request.inputs.items()})
    except ValueError as error:
        reason = str(error)
    raise _invalid(reason)


def _message(message: wire.Message) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        raise _invalid("a message has no role")
    return Message(role, message.text)


N = TypeVar("N", int, float)


def _sound(value: N, within: bool) -> N:
    if not within:
        raise _invalid("a number is out of its range: max_output_tokens > 0, temperature >= 0, 0 < top_p <= 1")
    return value


def _response_format(asked: wire.ResponseFormat) -> Mapping[str, Any]:
    form = asked.WhichOneof("format")
    if form == "json_object":
        return {"type": "json_object"}
    if form == "grammar":
        return {"type": "grammar", "grammar": asked.grammar}
    if form == "json_schema":
        try:
            return {"type": "json_schema", "schema": json.loads(asked.json_schema)}
        except (ValueError, RecursionError):
            pass
        raise _invalid("the JSON Schema is no JSON")
    raise _invalid("the response format is none that this server knows")


def _invalid(sentence: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, sentence)
