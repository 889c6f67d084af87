"""Retries end when they should, and a cancellation passes through all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.policies.plan import Retry
from edgewise.router.execution import retry as retrying
from edgewise.router.execution.retry import backoff, retry
from edgewise.router.execution.retry_budget import RetryBudget
from edgewise.testing import run_in_virtual_time

SETTINGS = Retry(max_attempts=1000, initial_backoff=0.05, max_backoff=2.0)
UNREACHABLE = AttemptError(FailureKind.UNREACHABLE, "gone")


class Rich(RetryBudget):
    """A budget that never ends."""

    def pay_for_retry(self) -> bool:
        return True


# What a predicate might answer to any exception: all that it can do is to say yes or no, or to fail itself.
predicates: st.SearchStrategy[Callable[[BaseException], bool]] = st.one_of(
    st.just(lambda error: True),
    st.just(lambda error: not isinstance(error, ValueError)),
    st.just(lambda error: isinstance(error, BaseException)),
    st.sets(st.sampled_from([asyncio.CancelledError, AttemptError, KeyboardInterrupt, GeneratorExit])).map(
        lambda kinds: lambda error: isinstance(error, tuple(kinds))
    ),
    st.functions(like=lambda error: None, returns=st.booleans(), pure=True),
)
endings = st.sampled_from([asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])


@given(may_retry=predicates, failures=st.integers(0, 5), at=st.floats(0.0, 3.0), busy=st.floats(0.001, 1.0))
def test_no_predicate_makes_a_retry_swallow_a_cancellation(
    may_retry: Callable[[BaseException], bool], failures: int, at: float, busy: float
) -> None:
    """Cancelled in a call or in the pause between two, whatever the predicate says of cancellations."""
    calls: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def call() -> str:
            calls.append(loop.time())
            await asyncio.sleep(busy)
            if len(calls) > failures:
                await asyncio.sleep(1000.0)
            raise UNREACHABLE

        with mock.patch.object(retrying, "may_retry", may_retry):
            begun = loop.time()
            task = loop.create_task(
                retry(call, UNREACHABLE, SETTINGS, Rich(loop.time), Deadline(1e6), random.Random(1))
            )
            await asyncio.sleep(at)
            if task.done():
                return
            task.cancel()
            before = len(calls)
            await asyncio.wait([task])
            assert task.cancelled()
            assert loop.time() - begun == pytest.approx(at, abs=1e-9)
            await asyncio.sleep(100.0)
        assert len(calls) in (before, before + (at == 0.0))

    run_in_virtual_time(main())


@given(ending=endings, after=st.integers(0, 5))
def test_what_ends_a_program_is_never_retried(ending: type[BaseException], after: int) -> None:
    calls = 0

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def call() -> str:
            nonlocal calls
            calls += 1
            if calls > after:
                raise ending
            raise UNREACHABLE

        coroutine = retry(call, UNREACHABLE, SETTINGS, Rich(loop.time), Deadline(1e6), random.Random(1))
        with pytest.raises(ending):
            await coroutine

    run_in_virtual_time(main())
    assert calls == after + 1


def run_retry(error: AttemptError, settings: Retry, budget: float, deadline: float) -> tuple[int, float]:
    """How many calls a retry made, and how long it took. Each takes 10 ms and fails with ``error``.

    ``deadline`` is so many seconds away.
    """
    calls = 0

    async def main() -> float:
        loop = asyncio.get_running_loop()
        tokens = RetryBudget(loop.time)
        tokens._reserve, tokens._earned = 0.0, budget

        async def call() -> str:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            raise error

        begun = loop.time()
        with pytest.raises(AttemptError) as raised:
            await retry(call, error, settings, tokens, Deadline(begun + deadline), random.Random(1))
        assert raised.value is error
        return loop.time() - begun

    took = run_in_virtual_time(main())
    return calls, took


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_max_attempts_counts_the_first_one(most: int) -> None:
    assert run_retry(UNREACHABLE, Retry(most, 0.05, 2.0), budget=100.0, deadline=1e6)[0] == most - 1


def test_each_retry_costs_a_token() -> None:
    assert run_retry(UNREACHABLE, Retry(100, 0.05, 2.0), budget=4.0, deadline=1e6)[0] == 4


@pytest.mark.parametrize("pushback", [0.5, 1.0, float("inf")])
def test_pushback_to_the_deadline_or_beyond_ends_the_retries(pushback: float) -> None:
    pushed = AttemptError(FailureKind.OVERLOADED, "full", retry_after=pushback)
    calls, ended = run_retry(pushed, SETTINGS, budget=100.0, deadline=1.0)
    assert calls == (1 if pushback == 0.5 else 0)
    assert ended < 1.0


@given(failures=st.integers(1, 12), seed=st.integers(0, 1000), pushback=st.none() | st.floats(0.0, 10.0))
def test_pauses_grow_to_a_limit_and_are_never_shorter_than_the_floor_or_the_pushback(
    failures: int, seed: int, pushback: float | None
) -> None:
    error = AttemptError(FailureKind.OVERLOADED, "full", retry_after=pushback)
    pause = backoff(failures, error, SETTINGS, random.Random(seed))
    longest = min(0.05 * 2 ** (failures - 1), 2.0)
    assert pause >= max(0.05 / 4, pushback or 0.0)
    assert pause <= max(longest, 1.2 * (pushback or 0.0))


def test_pauses_are_spread_over_all_of_their_range() -> None:
    source = random.Random(1)
    pauses = [backoff(4, UNREACHABLE, SETTINGS, source) for _ in range(400)]
    assert min(pauses) < 0.05
    assert max(pauses) > 0.35
    pushed = AttemptError(FailureKind.OVERLOADED, "full", retry_after=10.0)
    pushbacks = [backoff(1, pushed, SETTINGS, source) for _ in range(400)]
    assert min(pushbacks) < 10.2 < 11.8 < max(pushbacks)


class Longest(random.Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(
    ("pushback", "pauses"),
    [(None, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]), (0.3, [0.36, 0.36, 0.36, 0.4, 0.8, 1.6, 2.0, 2.0])],
    ids=["none", "pushback"],
)
def test_the_second_pause_is_as_long_as_two_failures_make_it(pushback: float | None, pauses: list[float]) -> None:
    at: list[float] = []
    error = AttemptError(FailureKind.OVERLOADED, "full", retry_after=pushback)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def call() -> str:
            at.append(loop.time())
            raise error

        with pytest.raises(AttemptError):
            await retry(call, error, Retry(9, 0.05, 2.0), Rich(loop.time), Deadline(1e6), Longest())

    run_in_virtual_time(main(), begins_at=0.0)
    assert [later - earlier for earlier, later in zip([0.0, *at], at, strict=False)] == pytest.approx(pauses)
