"""One answer: from the tokens of a prompt to the events of a stream."""

from __future__ import annotations

from ..chat.output import Transcript
from ..chat.prompt import Prompt
from ..process.engine import Events, Parcel, RunningCall
from ..process.frames import JsonObject
from .continuation import Begun, catch_up
from .native import Context
from .sampling import Sampler, logprobs, sampler


def generate(context: Context, prompt: Prompt, call: JsonObject, running: RunningCall, *, top_k: int) -> Events:
    """Events with ``text``, ``tokens`` and perhaps ``logprobs``, then one with ``finish``; none once cancelled."""
    with sampler(context, call, top_k) as sample:
        sample.follow(prompt.begun)
        begun = _read(context, prompt, sample, call)
        if begun is None:
            return None
        room = context.size - context.used + (begun.piece != b"")
        answer = Transcript(call["stop"], min(call["max_output_tokens"], room))
        if begun.piece:
            yield from answer.add(begun.piece, begun.logprobs)
        while not answer.full:
            if running.cancelled:
                return None
            token = sample.next()
            if context.vocabulary.ends_turn(token):
                answer.end()
                break
            likely = None if call["logprobs"] is None else logprobs(context, token, call["logprobs"])
            yield from answer.add(context.vocabulary.piece(token), likely)
            if not answer.full and not context.append([token]):
                return None
    yield from answer.rest()
    return Parcel({**answer.finish(len(prompt.tokens)), "reused_tokens": context.reused})


def _read(context: Context, prompt: Prompt, sample: Sampler, call: JsonObject) -> Begun | None:
    """Read the prompt; what of the answer is written by that already. None when aborted."""
    # Sums of floating-point numbers depend on how a prompt is cut into batches; a seed promises the same answer.
    afresh = call["seed"] is not None
    if call["temperature"] <= 0.0 and prompt.begun:
        return catch_up(context, prompt, sample, call["data_classes"], afresh=afresh, top=call["logprobs"])
    return Begun() if context.read(prompt.tokens, call["data_classes"], afresh=afresh) else None
