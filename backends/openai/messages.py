"""Core types to the API's JSON and back. Pure; raises ``ValueError`` without content for what does not fit."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from ...core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from ...core.content import EmbedInput, GenerateInput, Tensor
from ...core.failure import FailureKind
from .failures import ReportedFailure, kind_of_error
from .settings import OpenaiSettings

Json = Mapping[str, Any]  # JSON as it came

_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}

_MISFITS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, struct.error, OverflowError)


def generate_body(settings: OpenaiSettings, call: GenerateInput) -> bytes:
    """The body of a request for a stream."""
    body: dict[str, object] = {
        "model": settings.model,
        "messages": [{"role": message.role.value, "content": message.text} for message in call.messages],
        settings.limit_key: call.max_output_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if call.seed is not None:
        body["seed"] = call.seed
    if call.stop:
        body["stop"] = call.stop
    if call.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": call.logprobs}
    if call.response_format is not None:
        body["response_format"] = _response_format(call.response_format)
    return _bytes(body)


def embed_body(settings: OpenaiSettings, call: EmbedInput) -> bytes:
    """The body of a request for embeddings."""
    return _bytes({"model": settings.embed_model, "input": call.texts, "encoding_format": "float"})


def embeddings(body: bytes, count: int) -> Embeddings:
    """The answer to a request for ``count`` embeddings, in the order of the texts."""
    try:
        answer = json.loads(body)
        rows = {row["index"]: row["embedding"] for row in answer["data"]}
        vectors = [rows[at] for at in range(count)]
        width = len(vectors[0])
        data = b"".join(struct.pack(f"<{width}f", *vector) for vector in vectors)
        usage = Usage(_tokens(answer, "prompt_tokens"), 0)
        return Embeddings(Tensor("float32", (count, width), data), usage, str(answer.get("model", "")))
    except _MISFITS:
        pass
    raise ValueError("these are no embeddings")


class ChunkReader:
    """Reads the chunks of one stream. The usage comes after the reason, and may not come."""

    def __init__(self) -> None:
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._model = ""
        self._tokens = 0

    def read(self, data: bytes) -> list[GenerateEvent]:
        """The events in the data of one server-sent event; a `Finish` when nothing more is owed."""
        if data == b"[DONE]":
            return self.end()
        try:
            return self._events(json.loads(data.decode()))  # from bytes it would guess the encoding
        except _MISFITS:
            pass
        raise ValueError("this is no chunk of an answer")

    def end(self) -> list[GenerateEvent]:
        """The events that a good end of the stream stands for: none, where no reason was given."""
        if self._reason is None:
            return []
        return [Finish(self._reason, self._usage or Usage(0, self._tokens), self._model)]

    def _events(self, chunk: Json) -> list[GenerateEvent]:
        if chunk.get("error"):
            raise ReportedFailure(kind_of_error(chunk) or FailureKind.INTERNAL)
        self._model = str(chunk.get("model") or self._model)
        if chunk.get("usage"):
            self._usage = Usage(_tokens(chunk, "prompt_tokens"), _tokens(chunk, "completion_tokens"))
        events: list[GenerateEvent] = []
        for choice in chunk.get("choices") or ():
            text = choice.get("delta", {}).get("content") or ""
            logprobs = _logprobs(choice)
            if text or logprobs:
                tokens = len(logprobs) or 1
                self._tokens += tokens
                events.append(Delta(_text(text), tokens, logprobs))
            if choice.get("finish_reason"):
                self._reason = _reason(choice["finish_reason"])
        if self._reason is not None and self._usage is not None:
            events += self.end()
        return events


def _reason(said: str) -> FinishReason:
    if said == "content_filter":
        raise ReportedFailure(FailureKind.CONTENT_FILTER)
    if said not in _REASONS:  # tools were called, which were not offered
        raise ReportedFailure(FailureKind.INTERNAL)
    return _REASONS[said]


def _logprobs(choice: Json) -> tuple[TokenLogprob, ...]:
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        TokenLogprob(
            _text(each["token"]),
            float(each["logprob"]),
            tuple((_text(top["token"]), float(top["logprob"])) for top in each.get("top_logprobs") or ()),
        )
        for each in content
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is none")
    return value


def _tokens(answer: Json, key: str) -> int:
    return int((answer.get("usage") or {}).get(key) or 0)


def _response_format(asked: Json) -> Json:
    kind = asked.get("type")
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": asked.get("schema"), "strict": True}}
    raise ValueError("response_format has a type that this API does not know")


def _bytes(body: Json) -> bytes:
    # As UTF-8 rather than escapes, so that what is no Unicode fails here.
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
