"""One answer: from the tokens of a prompt to the events of a stream."""

from __future__ import annotations

from ...core.answer import FinishReason
from ..chat.output import OutputText, Pending
from ..chat.prompt import Prompt
from ..process.engine import Events, Parcel, RunningCall
from ..process.frames import JsonObject
from .continuation import catch_up
from .native import Context
from .sampling import logprobs, sampler


def generate(context: Context, prompt: Prompt, call: JsonObject, running: RunningCall, *, top_k: int) -> Events:
    """Events with ``text``, ``tokens`` and perhaps ``logprobs``, then one with ``finish``; none once cancelled."""
    output = OutputText(call["stop"])
    pending = Pending()
    generated = 0
    reason = FinishReason.LENGTH
    with sampler(context, call, top_k) as sample:
        # Sums of floating-point numbers depend on how a prompt is cut into batches; a seed promises the same answer.
        afresh = call["seed"] is not None
        sample.follow(prompt.begun)
        if call["temperature"] <= 0.0 and prompt.begun:
            begun = catch_up(context, prompt, sample, call["data_classes"], afresh=afresh)
            if begun is None:
                return None
        elif context.read(prompt.tokens, call["data_classes"], afresh=afresh):
            begun = b""
        else:
            return None
        limit = min(call["max_output_tokens"], context.size - context.used)
        if text := output.add(begun):
            pending.tokens = generated = 1
            yield pending.take(text)
        while generated < limit:
            if running.cancelled:
                return None
            token = sample.next()
            if context.vocabulary.ends_turn(token):
                reason = FinishReason.STOP
                break
            generated += 1
            pending.tokens += 1
            if call["logprobs"] is not None:
                pending.logprobs.append(logprobs(context, token, call["logprobs"]))
            text = output.add(context.vocabulary.piece(token))
            if output.stopped:
                pending.cut_to(text)
                reason = FinishReason.STOP
            if text:
                yield pending.take(text)
            if output.stopped:
                break
            if generated < limit and not context.append([token]):
                return None
    if rest := output.finish():
        yield pending.take(rest)
    counts = {"prompt_tokens": len(prompt.tokens), "reused_tokens": context.reused, "output_tokens": generated}
    return Parcel({"finish": reason, **counts})
