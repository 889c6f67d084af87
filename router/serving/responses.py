"""Answers as they leave: core types turned into messages."""

from __future__ import annotations

from ...backends.grpc.tensor_messages import to_message
from ...core.answer import Classification, Delta, Embeddings, Finish, FinishReason, Inference, TokenLogprob, Usage
from ...core.request import Task
from ...protos.v1 import model_service_pb2 as wire

_REASONS = {FinishReason.STOP: wire.FINISH_REASON_STOP, FinishReason.LENGTH: wire.FINISH_REASON_LENGTH}

TASKS = {
    Task.GENERATE: wire.TASK_GENERATE,
    Task.EMBED: wire.TASK_EMBED,
    Task.CLASSIFY: wire.TASK_CLASSIFY,
    Task.INFER: wire.TASK_INFER,
    Task.COUNT_TOKENS: wire.TASK_COUNT_TOKENS,
}


def delta_bytes(delta: Delta, sequence: int) -> bytes:
    """A piece of text on the wire."""
    message = wire.Delta(text=delta.text, tokens=delta.tokens)
    if delta.logprobs:
        message.logprobs.extend(map(_token_logprob, delta.logprobs))
    return wire.GenerateResponse(delta=message, sequence=sequence).SerializeToString()


def finish_bytes(finish: Finish, sequence: int, origin: wire.Origin, timings: wire.Timings) -> bytes:
    """The end of a stream on the wire."""
    reason, usage = _REASONS[finish.reason], _usage(finish.usage)
    message = wire.Finish(reason=reason, usage=usage, origin=origin, timings=timings)
    return wire.GenerateResponse(finish=message, sequence=sequence).SerializeToString()


def embeddings_bytes(embeddings: Embeddings, origin: wire.Origin, timings: wire.Timings) -> bytes:
    """Vectors on the wire."""
    vectors, usage = to_message(embeddings.vectors), _usage(embeddings.usage)
    return wire.EmbedResponse(vectors=vectors, usage=usage, origin=origin, timings=timings).SerializeToString()


def classification_bytes(judged: Classification, origin: wire.Origin, timings: wire.Timings) -> bytes:
    """Labels and scores on the wire."""
    scores, usage = to_message(judged.scores), _usage(judged.usage)
    return wire.ClassifyResponse(
        labels=judged.labels, scores=scores, usage=usage, origin=origin, timings=timings
    ).SerializeToString()


def inference_bytes(inference: Inference, origin: wire.Origin, timings: wire.Timings) -> bytes:
    """Named tensors on the wire."""
    outputs = {name: to_message(tensor) for name, tensor in inference.outputs.items()}
    return wire.InferResponse(outputs=outputs, origin=origin, timings=timings).SerializeToString()


def count_bytes(tokens: int, origin: wire.Origin, timings: wire.Timings) -> bytes:
    """A prompt's tokens on the wire."""
    return wire.CountTokensResponse(tokens=tokens, origin=origin, timings=timings).SerializeToString()


def _usage(usage: Usage) -> wire.Usage:
    return wire.Usage(prompt_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens)


def _token_logprob(token: TokenLogprob) -> wire.TokenLogprob:
    top = [wire.TokenLogprob.Alternative(token=text, logprob=logprob) for text, logprob in token.top]
    return wire.TokenLogprob(token=token.token, logprob=token.logprob, top=top)
