"""When a backend is left alone, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from edgewise.backends import BackendHealth, HealthState
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.router import BackendError, DeadlineExceeded, RequestError
from edgewise.router.execution.breaker import (
    FAILURES_TO_OPEN,
    LEAST_OUTCOMES,
    OUTCOMES_WITHIN,
    Breaker,
    BreakerState,
)
from edgewise.router.snapshot import Unreadable, table
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import Clock, RouterMaker

DOWN = AttemptError(FailureKind.UNREACHABLE, "it cannot be reached")
CALLERS_OWN = [
    FailureKind.INVALID_REQUEST,
    FailureKind.CONTEXT_LENGTH,
    FailureKind.CONTENT_FILTER,
    FailureKind.UNKNOWN_MODEL,
    FailureKind.NOT_PERMITTED,
    FailureKind.PLACE_UNKNOWN,
]


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, random.Random(3))


def attempt(breaker: Breaker, error: AttemptError | None = None) -> bool:
    """One attempt from its admission to its end; whether it was admitted."""
    this = object()
    if breaker.admit(this) is not None:
        return False
    if error is None:
        breaker.succeeded(this)
    else:
        breaker.failed(this, error)
    return True


def state(breaker: Breaker) -> BreakerState:
    """Read anew: a type checker takes a property for what it was."""
    return breaker.state


def test_failures_in_a_row_open_it_and_one_probe_at_a_time_closes_it(breaker: Breaker, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN):
        assert attempt(breaker, DOWN)
    assert state(breaker) is BreakerState.OPEN
    refusal = breaker.admit(object())
    assert refusal is not None
    assert "failed 3 times in a row, last: unreachable; tried again in" in refusal.sentence
    clock.now += breaker.remaining_pause()
    assert state(breaker) is BreakerState.HALF_OPEN
    probe = object()
    assert breaker.admit(probe) is None
    beside = breaker.admit(object())
    assert beside is not None
    assert "being tried by another request now" in beside.sentence
    breaker.succeeded(probe)
    assert state(breaker) is BreakerState.CLOSED
    assert attempt(breaker)


def test_a_success_between_them_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        attempt(breaker, DOWN)
    attempt(breaker)
    for _ in range(FAILURES_TO_OPEN - 1):
        attempt(breaker, DOWN)
    assert state(breaker) is BreakerState.CLOSED


def test_a_backend_that_fails_every_other_time_is_left_alone_too(breaker: Breaker, clock: Clock) -> None:
    """It never fails three times in a row."""
    admitted = 0
    for number in range(50):
        clock.now += 0.1
        if not attempt(breaker, DOWN if number % 2 else None):
            break
        admitted += 1
    assert admitted == LEAST_OUTCOMES
    assert breaker.failure_share == 0.5
    refusal = breaker.refusal()
    assert refusal is not None
    assert "failed too often of late" in refusal.sentence
    # What was begun before and still comes through is one of the successes that are too few.
    breaker.succeeded(object())
    assert state(breaker) is BreakerState.OPEN
    assert breaker.failures_in_a_row == 0
    clock.now += breaker.remaining_pause()
    assert attempt(breaker)
    assert state(breaker) is BreakerState.CLOSED
    # It begins with a clean slate: one more failure does not open it again.
    attempt(breaker, DOWN)
    assert state(breaker) is BreakerState.CLOSED


def test_a_share_needs_enough_failures_and_those_of_long_ago_do_not_count(breaker: Breaker, clock: Clock) -> None:
    for number in range(100):
        attempt(breaker, DOWN if number % 4 == 0 else None)
    assert state(breaker) is BreakerState.CLOSED
    for number in range(100):
        clock.now += OUTCOMES_WITHIN / (LEAST_OUTCOMES - 2)
        attempt(breaker, DOWN if number % 2 else None)
    assert state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("failing", "seconds", "opens"),
    [("s" + "fs" * 4 + "f", 29.9, True), ("s" + "fs" * 4 + "f", 30.1, False), ("ss" + "fs" * 4 + "f", 1.0, False)],
    ids=["five of ten within half a minute", "the first longer ago", "five of eleven"],
)
def test_half_of_ten_that_fail_within_half_a_minute_open_it(
    breaker: Breaker, clock: Clock, failing: str, seconds: float, opens: bool
) -> None:
    """In turn with successes, so that never three fail in a row."""
    for at, each in enumerate(failing):
        attempt(breaker, DOWN if each == "f" else None)
        assert state(breaker) is BreakerState.CLOSED or (opens and at == len(failing) - 1)
        clock.now += seconds if at == 0 else 0.0
    assert (state(breaker) is BreakerState.OPEN) == opens


@pytest.mark.parametrize("pauses", [1, 2, 6])
def test_a_pause_is_a_second_at_first_and_half_as_long_again_after_each_failed_probe(clock: Clock, pauses: int) -> None:
    lengths = []
    for seed in range(40):
        breaker = Breaker(clock, random.Random(seed))
        for _ in range(2):
            attempt(breaker, DOWN)
        for _ in range(pauses):
            clock.now += breaker.remaining_pause()
            attempt(breaker, DOWN)
        lengths.append(breaker.remaining_pause())
    mean = {1: 1.0, 2: 1.5, 6: 5.0}[pauses]
    assert 0.8 * mean <= min(lengths) < 0.85 * mean
    assert 1.15 * mean < max(lengths) <= 1.2 * mean


def test_what_is_stored_of_it_is_restored_as_if_the_time_between_had_passed(breaker: Breaker, clock: Clock) -> None:
    for _ in range(2):
        attempt(breaker, DOWN)
    for _ in range(3):
        clock.now += breaker.remaining_pause()
        attempt(breaker, DOWN)
    later = Clock()
    later.now = clock.now - 500.0  # another process counts from elsewhere
    restored = Breaker(later, random.Random(3))
    restored.restore(breaker.snapshot(), shift=-500.0)
    assert restored.state is BreakerState.OPEN
    assert restored.remaining_pause() == pytest.approx(breaker.remaining_pause())
    assert (restored.refusal(), restored.failures_in_a_row) == (breaker.refusal(), breaker.failures_in_a_row)
    later.now += restored.remaining_pause() + 5.0
    assert restored.remaining_pause() == 0.0
    attempt(restored, DOWN)
    assert 0.8 * 1.5**3 <= restored.remaining_pause() <= 1.2 * 1.5**3
    closed = Breaker(clock, random.Random(3))
    attempt(closed, DOWN)
    restored.restore(closed.snapshot(), shift=0.0)
    assert (restored.state, restored.failures_in_a_row) == (BreakerState.CLOSED, 1)
    far = {**table(breaker.snapshot()), "open_until": later.now + 1e6}
    restored.restore(far, shift=0.0)
    assert restored.remaining_pause() == 6.0  # no clock that was set back keeps it open for longer than a pause


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("failures", -1),
        ("pause", 0.9),
        ("pause", 5.1),
        ("last_failure", "a text"),
        ("opened", "yes"),
        ("open_until", ""),
    ],
)
def test_a_stored_state_that_none_was_is_not_taken(breaker: Breaker, key: str, value: float | str) -> None:
    for _ in range(3):
        attempt(breaker, DOWN)
    before = breaker.snapshot()
    with pytest.raises(Unreadable):
        breaker.restore({**table(before), key: value}, shift=0.0)
    assert breaker.snapshot() == before


def test_a_success_makes_the_next_pause_short_again(breaker: Breaker, clock: Clock) -> None:
    for _ in range(2):
        attempt(breaker, DOWN)
    for _ in range(6):
        clock.now += breaker.remaining_pause()
        attempt(breaker, DOWN)
    clock.now += breaker.remaining_pause()
    attempt(breaker)
    assert breaker.failures_in_a_row == 0
    for _ in range(3):
        attempt(breaker, DOWN)
    assert breaker.remaining_pause() <= 1.2


def test_the_pause_grows_with_each_failed_probe_and_never_past_its_bound(breaker: Breaker, clock: Clock) -> None:
    pauses = []
    for _ in range(FAILURES_TO_OPEN - 1):
        attempt(breaker, DOWN)
    for _ in range(12):
        assert attempt(breaker, DOWN)
        pauses.append(breaker.remaining_pause())
        clock.now += breaker.remaining_pause()
    assert 0.8 <= pauses[0] <= 1.2
    # 1 s growing to 5 s, ± 20 %: the half minute that a backend is often left alone elsewhere would be felt.
    assert 4.0 <= max(pauses) <= 6.0
    assert pauses[5] > pauses[0]


@pytest.mark.parametrize("kind", CALLERS_OWN)
def test_a_caller_s_own_mistakes_never_count(breaker: Breaker, kind: FailureKind) -> None:
    for _ in range(100):
        assert attempt(breaker, AttemptError(kind, "as the caller wanted it"))
    assert state(breaker) is BreakerState.CLOSED
    assert breaker.failure_share == 0.0


def test_a_probe_that_was_stopped_or_says_nothing_lets_the_next_one_try(breaker: Breaker, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN):
        attempt(breaker, DOWN)
    clock.now += breaker.remaining_pause()
    probe = object()
    assert breaker.admit(probe) is None
    breaker.abandoned(probe)
    assert attempt(breaker, AttemptError(FailureKind.INVALID_REQUEST, "the caller's"))
    assert attempt(breaker)
    assert state(breaker) is BreakerState.CLOSED


def test_the_only_backend_is_used_again_soon_after_it_is_back(make_router: RouterMaker) -> None:
    """One backend alone, down for half a minute."""

    def now() -> float:
        return asyncio.get_running_loop().time()

    back_at = 0.0
    cloud = ScriptedBackend("cloud", lambda number: Script(failure=DOWN) if now() < back_at else Script())

    async def main() -> None:
        nonlocal back_at
        back_at = now() + 30.0
        async with make_router(cloud) as router:
            while now() < back_at:
                with pytest.raises(BackendError):
                    await router.generate("Hello", data_class="public", latency_budget=1.0)
                await asyncio.sleep(0.2)
            back = now()
            while True:
                try:
                    await router.generate("Hello", data_class="public", latency_budget=1.0)
                    break
                except BackendError:
                    await asyncio.sleep(0.05)
            assert now() - back < 6.0 + 0.1

    run_in_virtual_time(main())


def test_who_finds_the_probe_s_turn_taken_is_not_counted_as_an_attempt(make_router: RouterMaker) -> None:
    """Planned while it was free, and overtaken by another. The numbers add up."""
    cloud = ScriptedBackend("cloud", lambda number: Script(failure=DOWN) if number < 3 else Script(first_after=0.2))

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            for _ in range(3):
                await router.generate("Hello", data_class="public")
            await asyncio.sleep(2.0)
            answers = await asyncio.gather(*(router.generate("Hello", data_class="public") for _ in range(4)))
            assert sorted(answer.backend for answer in answers) == ["cloud", "phone", "phone", "phone"]
            attempts = router.stats().backends["cloud"].attempts
            assert (attempts.started, attempts.succeeded, attempts.stopped) == (4, 1, 0)
            assert attempts.failed == {FailureKind.UNREACHABLE: 3}

    run_in_virtual_time(main())


def test_a_model_that_takes_long_to_load_is_no_failure(make_router: RouterMaker) -> None:
    """Every request is too impatient for the load, and none of them keeps the next away from the loaded model."""
    loading = BackendHealth(HealthState.LOADING, "the engine loads its model")
    phone = ScriptedBackend("phone", lambda number: Script(silent_after=0) if number < 8 else Script(), health=loading)

    async def main() -> None:
        async with make_router(phone) as router:
            for _ in range(8):
                with pytest.raises(DeadlineExceeded):
                    await router.generate("Hello", latency_budget=20.0)
            assert router.stats().backends["phone"].breaker.state is BreakerState.CLOSED
            phone.reported_health = BackendHealth(HealthState.READY)
            assert (await router.generate("Hello")).backend == "phone"

    run_in_virtual_time(main())


@pytest.mark.parametrize("kind", [FailureKind.UNREACHABLE, FailureKind.INVALID_REQUEST])
def test_who_began_before_it_opened_and_fails_lets_no_second_probe_in_and_prolongs_no_pause(
    breaker: Breaker, clock: Clock, kind: FailureKind
) -> None:
    early, probe = [object(), object()], object()
    for this in early:
        assert breaker.admit(this) is None
    for _ in range(FAILURES_TO_OPEN):
        attempt(breaker, DOWN)
    paused = breaker.remaining_pause()
    clock.now += paused / 2
    breaker.failed(early[0], AttemptError(kind, "it ended late"))
    assert breaker.remaining_pause() == pytest.approx(paused / 2)
    clock.now += breaker.remaining_pause()
    assert breaker.admit(probe) is None
    breaker.failed(early[1], AttemptError(kind, "it ended late"))
    assert state(breaker) is BreakerState.HALF_OPEN
    assert breaker.admit(object()) is not None
    breaker.succeeded(probe)
    assert state(breaker) is BreakerState.CLOSED


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "failing"])
def test_who_began_before_it_opened_lets_no_second_probe_in(make_router: RouterMaker, stopped: bool) -> None:
    failure = AttemptError(FailureKind.INTERNAL, "it failed")
    late, failing = Script(first_after=0.5, failure=failure), Script(failure=failure)
    scripts = [late, failing, failing, failing]
    cloud = ScriptedBackend("cloud", lambda number: scripts[number] if number < 4 else Script(silent_after=0))

    async def main() -> None:
        async with make_router(cloud, policy="  rules: [{name: one at a time, set: {hedge: false}}]\n") as router:

            async def ask() -> None:
                with contextlib.suppress(RequestError):
                    await router.generate("Hello", data_class="public", idempotent=False)

            before = asyncio.create_task(ask())
            await asyncio.sleep(0.01)
            for _ in range(3):
                await ask()
            router._started().fleet["cloud"].lane(Task.GENERATE).breaker.try_now()
            probe = asyncio.create_task(ask())
            await asyncio.sleep(0.01)
            assert len(cloud.calls) == 5
            if stopped:
                before.cancel()
            await asyncio.sleep(2.5)
            assert before.done()
            await ask()
            assert len(cloud.calls) == 5
            probe.cancel()

    run_in_virtual_time(main())
