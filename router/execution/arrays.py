"""Carries out plans for work with one result: embeddings, classifications, tensors and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...core.answer import Classification, Embeddings, Inference
from ...core.failure import AttemptError, FailureKind
from .attempt import Attempt
from .conduct import Run
from .outcome import failed, refused
from .race import Race, RaceFailed

T = TypeVar("T")


async def run_embed(run: Run, texts: int) -> tuple[Embeddings, float | None]:
    """Embed so many texts; also what that cost, in US dollars. Raises the errors of `router.embed`."""

    async def embed(attempt: Attempt) -> Embeddings:
        answer = await run.conduct.dispatch.embed(*attempt.sending())
        if answer.vectors.shape[:1] != (texts,):
            sentence = f"backend {attempt.step.backend!r} gave {answer.vectors!r} for {texts} texts"
            raise AttemptError(FailureKind.PROTOCOL, sentence)
        attempt.usage = answer.usage
        return answer

    attempt, answer = await _run(run, embed)
    return answer, attempt.record.cost


async def run_classify(run: Run, texts: int) -> tuple[Classification, float | None]:
    """Classify so many texts; also what that cost, in US dollars. Raises the errors of `router.classify`."""

    async def classify(attempt: Attempt) -> Classification:
        answer = await run.conduct.dispatch.classify(*attempt.sending())
        if answer.scores.shape != (texts, len(answer.labels)):
            wanted = f"{texts} texts and {len(answer.labels)} labels"
            sentence = f"backend {attempt.step.backend!r} gave {answer.scores!r} for {wanted}"
            raise AttemptError(FailureKind.PROTOCOL, sentence)
        attempt.usage = answer.usage
        return answer

    attempt, answer = await _run(run, classify)
    return answer, attempt.record.cost


async def run_infer(run: Run) -> Inference:
    """Infer. Raises the errors of `router.infer`."""
    _, answer = await _run(run, lambda attempt: run.conduct.dispatch.infer(*attempt.sending()))
    return answer


async def run_count_tokens(run: Run) -> int:
    """Count a prompt's tokens. Raises the errors of `router.count_tokens`."""

    async def count(attempt: Attempt) -> int:
        tokens = await run.conduct.dispatch.count_tokens(*attempt.sending())
        if tokens < 0:
            sentence = f"backend {attempt.step.backend!r} counted fewer than no tokens"
            raise AttemptError(FailureKind.PROTOCOL, sentence)
        return tokens

    _, tokens = await _run(run, count)
    return tokens


async def _run(run: Run, call: Callable[[Attempt], Awaitable[T]]) -> tuple[Attempt, T]:
    if not run.plan.steps:
        raise refused(run.plan, run.decision)
    loop = asyncio.get_running_loop()

    async def start(attempt: Attempt) -> tuple[Attempt, T]:
        result = await attempt.call(lambda: call(attempt))
        attempt.token(0, loop.time())
        attempt.settle(None)
        attempt.free()
        return attempt, result

    try:
        attempt, result = await Race(run, run.plan.steps, start, run.deadline, begin_by=run.begin_by).result()
    except RaceFailed as lost:
        raise failed(lost, run.decision) from None
    run.answered(attempt.step.backend, loop.time())
    return attempt, result
