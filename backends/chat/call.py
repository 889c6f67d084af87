"""A generation between the application and its worker: what goes over, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable

from ...core.answer import Delta, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from ...core.content import GenerateInput
from ...core.failure import AttemptError, FailureKind
from ..backend import CallContext
from ..process.frames import JsonObject


def call_fields(call: GenerateInput, context: CallContext) -> JsonObject:
    """The fields of a call to an engine. Raises INVALID_REQUEST for what is not Unicode."""
    require_unicode([*(message.text for message in call.messages), *call.stop])
    return {
        "messages": [{"role": message.role.value, "content": message.text} for message in call.messages],
        "continues": call.continues,
        "max_output_tokens": call.max_output_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "seed": call.seed,
        "stop": [stop for stop in call.stop if stop],
        "response_format": None if call.response_format is None else dict(call.response_format),
        "logprobs": call.logprobs,
        "data_classes": sorted(set(context.data_classes)),
    }


def generate_event(fields: JsonObject, model: str, waiting: int) -> GenerateEvent:
    """An engine's event as one of a backend. ``waiting`` is how many calls wait for the engine."""
    if (reason := fields.get("finish")) is None:
        return Delta(fields["text"], fields["tokens"], _logprobs(fields))
    usage = Usage(fields["prompt_tokens"], fields["output_tokens"])
    return Finish(FinishReason(reason), usage, model, "device", waiting)


def require_unicode(texts: Iterable[str]) -> None:
    """Raise INVALID_REQUEST for a text that cannot be said in UTF-8."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            sentence = "a text is not valid Unicode (it has a lone surrogate)"
            raise AttemptError(FailureKind.INVALID_REQUEST, sentence) from None


def may_overflow(call: GenerateInput, context_tokens: int) -> bool:
    """Whether the texts might have too many tokens: one has at least a byte, as a rule several."""
    return sum(len(message.text.encode()) for message in call.messages) > context_tokens


def _logprobs(fields: JsonObject) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token, logprob, tuple((other, value) for other, value in top))
        for token, logprob, top in fields.get("logprobs", ())
    )
