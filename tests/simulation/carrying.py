"""Asks a router what a caller asks, and writes down what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from edgewise.router import Answer, AsyncRouter, Decision, EdgewiseError
from edgewise.router.options import GenerateOptions, RequestOptions

from .requests import STOP, Ask
from .rules import Bounds


@dataclass(slots=True)
class Outcome:
    """What came of one request. Times are the loop's, in seconds. ``era`` counts the versions of the policy up to then.

    ``end`` is 'answered', 'left', 'cancelled' or an error's type. ``read_for`` is how long the caller kept the stream
    waiting. ``result`` holds what is compared with what the backends said.
    """

    ask: Ask
    bounds: Bounds
    era: int
    link: str
    started: float
    ended: float = 0.0
    end: str = ""
    error: BaseException | None = None
    answer: Answer | None = None
    decision: Decision | None = None
    shown: str = ""
    first_text: float | None = None
    read_for: float = 0.0
    cancelled_at: float | None = None
    rows: list[list[float]] = field(default_factory=list)


async def carry(router: AsyncRouter, outcome: Outcome) -> None:
    """Ask, and wait for the end, whatever it is."""
    loop = asyncio.get_running_loop()
    ask = outcome.ask
    task = asyncio.current_task()
    assert task is not None
    timer = None

    def cancel() -> None:
        outcome.cancelled_at = loop.time()
        task.cancel()

    if ask.cancel_after is not None:
        timer = loop.call_later(ask.cancel_after, cancel)
    try:
        await _DOINGS[ask.task](router, outcome)
        outcome.end = outcome.end or "answered"
    except asyncio.CancelledError as error:
        outcome.end, outcome.error = "cancelled", error
        task.uncancel()
    except EdgewiseError as error:
        outcome.end, outcome.error = type(error).__name__, error
        outcome.decision = getattr(error, "decision", None)
    except Exception as error:  # noqa: BLE001  # whatever it is, the judge tells that it is none of the documented
        outcome.end, outcome.error = type(error).__name__, error
    finally:
        outcome.ended = loop.time()
        if timer is not None:
            timer.cancel()


async def _generate(router: AsyncRouter, outcome: Outcome) -> None:
    answer = await router.generate(outcome.ask.messages, **_generate_options(outcome.ask))
    outcome.answer, outcome.shown, outcome.decision = answer, answer.text, answer.decision


async def _stream(router: AsyncRouter, outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    ask = outcome.ask
    count = 0
    options = _generate_options(ask)
    if ask.restarts:
        chunks = router.stream(ask.messages, **options, stream_failover="restart")
    else:
        chunks = router.stream(ask.messages, **options)
    async with aclosing(chunks):
        async for chunk in chunks:
            if outcome.first_text is None:
                outcome.first_text = loop.time()
            if chunk.seam is not None and chunk.seam.restarts:
                outcome.shown = ""
            outcome.shown += chunk.text
            if chunk.answer is not None:
                outcome.answer, outcome.decision = chunk.answer, chunk.answer.decision
            count += 1
            if count == ask.leave_after and chunk.answer is None:
                outcome.end = "left"
                return
            if ask.read_pause:
                before = loop.time()
                try:
                    await asyncio.sleep(ask.read_pause)
                finally:
                    outcome.read_for += loop.time() - before


async def _embed(router: AsyncRouter, outcome: Outcome) -> None:
    texts = [outcome.ask.content, "a second text"]
    vectors = await router.embed(texts, **_options(outcome.ask))
    outcome.rows, outcome.decision = vectors.tolist(), vectors.decision


async def _classify(router: AsyncRouter, outcome: Outcome) -> None:
    judged = await router.classify([outcome.ask.content], **_options(outcome.ask))
    outcome.rows, outcome.decision = [[each.score for each in entry] for entry in judged], judged.decision


async def _count(router: AsyncRouter, outcome: Outcome) -> None:
    count = await router.count_tokens(outcome.ask.messages, **_options(outcome.ask))
    outcome.rows, outcome.decision = [[float(count)]], count.decision


async def _infer(router: AsyncRouter, outcome: Outcome) -> None:
    tensors = await router.infer(outcome.ask.content, {"x": [outcome.ask.number]}, **_options(outcome.ask))
    outcome.rows, outcome.decision = [tensors["x"].tolist()], tensors.decision


_DOINGS: dict[str, Callable[[AsyncRouter, Outcome], Awaitable[None]]] = {
    "generate": _generate,
    "stream": _stream,
    "embed": _embed,
    "infer": _infer,
    "classify": _classify,
    "count_tokens": _count,
}


def _options(ask: Ask) -> RequestOptions:
    options = RequestOptions()
    _say(options, ask)
    return options


def _say(options: RequestOptions, ask: Ask) -> None:
    options["priority"] = ask.priority
    options["idempotent"] = ask.idempotent
    options["latency_budget"] = ask.latency_budget
    if ask.classes:
        options["data_class"] = ask.classes
    if ask.first_token_budget is not None:
        options["first_token_budget"] = ask.first_token_budget
    if ask.tag is not None:
        options["tags"] = {"ward": ask.tag}
    if ask.residency is not None:
        options["residency"] = {"process_in": ask.residency}
    if ask.backends:
        options["backend"] = ask.backends
    if ask.conversation is not None:
        options["conversation"] = ask.conversation


def _generate_options(ask: Ask) -> GenerateOptions:
    options = GenerateOptions(max_output_tokens=ask.words)
    _say(options, ask)
    if ask.stop:
        options["stop"] = STOP
    if ask.logprobs:
        options["logprobs"] = 0
    return options
