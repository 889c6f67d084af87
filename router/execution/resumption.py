"""A stream whose connection was lost goes on where it stopped, at the backend that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from .attempt import Attempt
from .conduct import Run
from .retry import retry

T = TypeVar("T")

UnderWay = Callable[[], None]
"""Says that the stream goes on, so that it has all the time it takes."""


async def resume(
    run: Run,
    broken: Attempt,
    failure: AttemptError,
    go_on: Callable[[Attempt, UnderWay], Awaitable[T]],
    until: Deadline,
) -> T | None:
    """Go on with a broken attempt's stream by attempts of their own; ``None`` where it is not under way ``until`` then.

    Every one is paid for like a retry, and waits like one. Only what broke on the way is taken up again: a stream that
    its backend ended would end there again. Nothing runs twice, so a request need not be idempotent.
    """
    if failure.kind is not FailureKind.UNREACHABLE or not broken.can_resume:
        return None
    last = broken

    def wait(until: float | None) -> None:
        if not patience.expired():  # a backend that does not stop may still say something
            patience.reschedule(until)

    async def again() -> T | None:
        nonlocal last
        wait(until.at)
        last = Attempt(run, broken.step, "resume", resumes=last)
        try:
            return await go_on(last, lambda: wait(None))
        except AttemptError as error:
            if error.kind is FailureKind.UNREACHABLE:
                raise
            return None

    try:
        async with asyncio.timeout_at(until.at) as patience:
            return await retry(again, failure, run.plan.retry, broken.member.retry_budget, until, run.conduct.random)
    except (AttemptError, TimeoutError):
        return None
