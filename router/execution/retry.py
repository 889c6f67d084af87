"""Asking the same backend again, when nothing else is left but the last resort."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...core.deadline import Deadline
from ...core.failure import AttemptError
from ...policies.plan import Retry
from .retry_budget import RetryBudget

T = TypeVar("T")

_FLOOR = 0.25
"""No pause is shorter than this share of the first backoff: full jitter alone may retry at once."""
_PUSHBACK_JITTER = 0.2


async def retry(
    call: Callable[[], Awaitable[T]],
    failed: AttemptError,
    settings: Retry,
    budget: RetryBudget,
    deadline: Deadline,
    source: random.Random,
) -> T:
    """Repeat ``call``, which has ``failed`` once, by ``settings``, as far as ``budget`` and ``deadline`` allow.

    Raises the last `AttemptError`. A server's pushback is obeyed; one beyond the deadline ends the retries. Only
    `AttemptError` is ever repeated, so that a cancellation passes.
    """
    # Imported here, where something failed: a request that succeeds does not pay for it.
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

    loop = asyncio.get_running_loop()

    def pause(state: RetryCallState) -> float:
        return backoff(state.attempt_number + 1, _failure(state), settings, source)

    def enough(state: RetryCallState) -> bool:
        return no_more(state.attempt_number + 1, _failure(state))

    def again(error: BaseException) -> bool:
        # Whatever the table says of failures, a cancellation is none: tenacity would swallow one that it may repeat.
        return isinstance(error, AttemptError) and may_retry(error)

    def no_more(tried: int, error: AttemptError) -> bool:
        late = error.retry_after is not None and error.retry_after >= deadline.remaining(loop.time())
        return tried >= settings.max_attempts or late or (may_retry(error) and not budget.pay_for_retry())

    if no_more(1, failed):
        raise failed
    await asyncio.sleep(backoff(1, failed, settings, source))
    controller = AsyncRetrying(
        retry=retry_if_exception(again), stop=enough, wait=pause, sleep=asyncio.sleep, reraise=True
    )
    # tenacity awaits what it can see to be a coroutine function: give it one, not a lambda.
    return await controller(call)


def may_retry(error: AttemptError) -> bool:
    """Whether the same backend may be asked again after this."""
    return error.disposition.retry_here


def backoff(failures: int, error: AttemptError, settings: Retry, source: random.Random) -> float:
    """Seconds to wait after so many failures: exponential, full jitter with a floor, at least the server's pushback."""
    longest = min(settings.initial_backoff * 2.0 ** (failures - 1), settings.max_backoff)
    jittered = max(settings.initial_backoff * _FLOOR, source.uniform(0.0, longest))
    if error.retry_after is None:
        return jittered
    return max(jittered, error.retry_after * (1.0 + source.uniform(0.0, _PUSHBACK_JITTER)))


def _failure(state: object) -> AttemptError:
    outcome = getattr(state, "outcome", None)
    error = None if outcome is None else outcome.exception()
    assert isinstance(error, AttemptError)
    return error
