"""Who is asked beside whom, when, and at whose expense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from edgewise.backends import CallContext, Capabilities
from edgewise.core.answer import GenerateEvent
from edgewise.core.request import Task
from edgewise.router import AsyncRouter, BackendError, DeadlineExceeded, FailureKind, InvalidRequest
from edgewise.router.execution.breaker import BreakerState
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, failing

SILENT = Script(silent_after=0)
NO_HEDGE = "  rules: [{name: one at a time, set: {hedge: false}}]\n"


async def learn(router: AsyncRouter, *backends: str, times: int = 40) -> None:
    """Let the router learn how quick these are."""
    for name in backends:
        for _ in range(times):
            await router.generate("Hello", data_class="public", backend=name)


def silent_from(number: int) -> Callable[[int], Script]:
    return lambda call: SILENT if call >= number else Script()


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (NO_HEDGE, {}),
        ("", {"idempotent": False}),
        ("  rules: [{name: in need only, avoid: [phone]}]\n", {}),
    ],
    ids=["by the policy", "not idempotent", "to an avoided one"],
)
def test_nobody_is_hedged_where_that_is_forbidden(
    make_router: RouterMaker, policy: str, options: dict[str, Any]
) -> None:
    cloud, phone = ScriptedBackend("cloud", silent_from(40)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone, policy=policy) as router:
            await learn(router, "cloud", "phone")
            before = len(phone.calls)
            asking = asyncio.create_task(router.generate("Hello", data_class="public", latency_budget=20.0, **options))
            await asyncio.sleep(15.0)
            assert len(phone.calls) == before
            await asyncio.wait([asking])
            # The last resort starts at its last safe moment all the same, unless that might run twice.
            assert len(phone.calls) == before + ("idempotent" not in options)

    run_in_virtual_time(main())


def test_a_hedge_is_paid_for_by_whom_it_asks_and_once_a_request(make_router: RouterMaker) -> None:
    cloud, gateway = ScriptedBackend("cloud", silent_from(40)), ScriptedBackend("gateway", silent_from(40))
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, gateway, phone) as router:
            await learn(router, "cloud", "gateway", "phone")
            tokens = {name: each.retry_tokens.hedges for name, each in router.stats().backends.items()}
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            attempts = answer.decision.attempts
            assert [attempt.backend for attempt in attempts] == ["cloud", "gateway", "phone"]
            assert [attempt.reason.split(",")[0] for attempt in attempts] == ["first choice", "hedge", "last resort"]
            # It comes when the first token should have been there: 10 ms are usual, and a hiccup is no fault.
            assert 0.01 <= attempts[1].started <= 0.03
            assert attempts[2].started > 15.0
            spent = {name: tokens[name] - each.retry_tokens.hedges for name, each in router.stats().backends.items()}
            # Time, and the first attempt, have brought some.
            assert spent["gateway"] > 0.5 > 0.0 >= spent["cloud"]
            assert spent["phone"] <= 0.0

    run_in_virtual_time(main())


def test_however_quick_a_backend_is_a_hiccup_is_not_hedged(make_router: RouterMaker) -> None:
    """Ten milliseconds at least: two would be usual here."""
    quick = Script(first_after=0.001)
    cloud = ScriptedBackend("cloud", lambda number: SILENT if number == 200 else quick)

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone", quick)) as router:
            await learn(router, "cloud", "phone", times=200)
            attempts = (await router.generate("Hello", data_class="public", latency_budget=20.0)).decision.attempts
            assert [attempt.backend for attempt in attempts] == ["cloud", "phone"]
            assert attempts[1].started == pytest.approx(0.01)

    run_in_virtual_time(main())


def test_who_has_begun_to_answer_is_not_hedged(make_router: RouterMaker) -> None:
    slow = Script(words=("a ",) * 40, every=0.1)
    cloud, phone = ScriptedBackend("cloud", slow), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            await learn(router, "cloud")
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            assert [attempt.backend for attempt in answer.decision.attempts] == ["cloud"]

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("retry_after", "reasons"),
    [
        (None, ["first choice", "retry"]),
        (0.2, ["first choice", "retry"]),
        (0.3, ["first choice", "cloud failed: overloaded"]),
    ],
)
def test_a_short_pushback_is_waited_out_beside_a_last_resort_and_a_long_one_is_not(
    make_router: RouterMaker, retry_after: float | None, reasons: list[str]
) -> None:
    cloud = ScriptedBackend(
        "cloud", lambda number: failing(FailureKind.OVERLOADED, retry_after) if number == 0 else Script()
    )

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            assert [attempt.reason for attempt in answer.decision.attempts] == reasons

    run_in_virtual_time(main())


@pytest.mark.parametrize("retry_after", [None, 3.0])
def test_alone_even_a_long_pushback_is_waited_out(make_router: RouterMaker, retry_after: float | None) -> None:
    cloud = ScriptedBackend(
        "cloud", lambda number: failing(FailureKind.OVERLOADED, retry_after) if number == 0 else Script()
    )

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            assert [attempt.reason for attempt in answer.decision.attempts] == ["first choice", "retry"]
            assert answer.decision.attempts[1].started >= (retry_after or 0.0)

    run_in_virtual_time(main())


def test_who_was_asked_again_is_not_asked_a_third_time_by_the_race(make_router: RouterMaker) -> None:
    """The retries of one backend end with the configured attempts, then the last resort has its turn."""
    cloud, phone = ScriptedBackend("cloud", failing(FailureKind.OVERLOADED)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
            assert [attempt.backend for attempt in answer.decision.attempts] == ["cloud"] * 3 + ["phone"]

    run_in_virtual_time(main())


def test_a_last_resort_with_a_smaller_context_is_not_asked_what_was_too_long(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", failing(FailureKind.CONTEXT_LENGTH)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            with pytest.raises(InvalidRequest, match="too long"):
                await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_first_attempt_that_fails_earns_half_of_one_that_does_not(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", lambda number: failing(FailureKind.INTERNAL) if number else Script())

    async def main() -> None:
        async with make_router(cloud) as router:
            before = router.stats().backends["cloud"].retry_tokens.retries
            await router.generate("Hello", data_class="public")
            one = router.stats().backends["cloud"].retry_tokens.retries
            with pytest.raises(BackendError):
                await router.generate("Hello", data_class="public")
            two = router.stats().backends["cloud"].retry_tokens.retries
            assert one - before == pytest.approx(0.2)
            assert two - one == pytest.approx(0.1)

    run_in_virtual_time(main())


@pytest.mark.parametrize(("kind", "lines"), [(FailureKind.INTERNAL, 0), (FailureKind.CREDENTIALS, 1)])
def test_only_what_a_person_has_to_mend_is_logged_as_an_error(
    make_router: RouterMaker, caplog: pytest.LogCaptureFixture, kind: FailureKind, lines: int
) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", failing(kind)), ScriptedBackend("phone")) as router:
            for _ in range(2):
                assert (await router.generate("Hello", data_class="public")).backend == "phone"

    run_in_virtual_time(main())
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == lines


def test_a_silence_longer_than_ever_is_a_failure_though_another_answered(make_router: RouterMaker) -> None:
    """And teaches that it takes at least so long. A caller who leaves at once says nothing."""
    cloud, phone = ScriptedBackend("cloud", silent_from(40)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            await learn(router, "cloud", "phone")
            for _ in range(5):
                left = asyncio.create_task(router.generate("Hello", data_class="public"))
                await asyncio.sleep(0.001)
                left.cancel()
                await asyncio.wait([left])
            stats = router.stats().backends["cloud"]
            assert (stats.breaker.failures_in_a_row, stats.attempts.stopped) == (0, 5)
            usual = stats.tasks[Task.GENERATE].first_token.p50
            for _ in range(3):
                await router.generate("Hello", data_class="public", latency_budget=5.0)
            stats = router.stats().backends["cloud"]
            assert stats.breaker.state is BreakerState.OPEN
            assert stats.attempts.failed == {FailureKind.TIMED_OUT: 3}
            assert stats.tasks[Task.GENERATE].first_token.p50 > usual * 1.1

    run_in_virtual_time(main())


def test_a_record_s_times_count_from_the_request_s_entry(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=0.5, every=0.25))

    async def main() -> None:
        async with make_router(cloud) as router:
            await asyncio.sleep(100.0)
            answer = await router.generate("Hello", data_class="public")
        (attempt,) = answer.decision.attempts
        assert (attempt.started, attempt.first_token, attempt.ended) == pytest.approx((0.0, 0.5, 1.0))
        assert answer.decision.ended == pytest.approx(1.0)

    run_in_virtual_time(main())


def test_what_is_left_early_teaches_its_pace_all_the_same(make_router: RouterMaker) -> None:
    """Else a caller who never reads to the end would never know how quick a backend is."""
    cloud = ScriptedBackend("cloud", Script(("a ",) * 30, first_after=1.0, every=0.2))

    async def main() -> None:
        async with make_router(cloud) as router:
            for _ in range(60):
                await asyncio.sleep(7.0)
                async with aclosing(router.stream("Hello", data_class="public")) as chunks:
                    for _ in range(6):
                        await anext(chunks)
            task = router.stats().backends["cloud"].tasks[Task.GENERATE]
            assert task.output_token is not None
            # From 15 ms a token and 0.3 s for the first one, which a prior that counts five holds on to.
            assert 0.09 < task.output_token.p50 < 0.21
            assert 0.7 < task.first_token.p50 < 1.1
            assert router.stats().backends["cloud"].breaker.failures_in_a_row == 0

    run_in_virtual_time(main())


def test_what_is_silent_teaches_that_it_takes_at_least_so_long(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", SILENT)

    async def main() -> None:
        async with make_router(cloud, policy=NO_HEDGE) as router:
            before = router.stats().backends["cloud"].tasks[Task.GENERATE].first_token.p50
            await asyncio.sleep(50.0)
            with pytest.raises(DeadlineExceeded):
                await router.generate("Hello", data_class="public", latency_budget=20.0)
            after = router.stats().backends["cloud"].tasks[Task.GENERATE].first_token.p50
            # One observation of at least 20 s beside a prior of 0.3 s that counts five.
            assert 1.5 * before < after < 6.0 * before

    run_in_virtual_time(main())


class SlowToResume(ScriptedBackend):
    """Loses each answer after its first word from the 41st on, and takes three seconds to go on with one."""

    def __init__(self) -> None:
        can = Capabilities(frozenset(Task), continues=True, resumes=True, max_concurrency=8)
        words = ("one ", "two ", "three")
        super().__init__(
            "cloud", lambda n: Script(words, every=0.1, lost_after=(1,) if n >= 40 else ()), capabilities=can
        )

    async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        await asyncio.sleep(3.0)
        async for event in super().resume(after, context):
            yield event


@pytest.mark.parametrize(("names", "seconds"), [([], 3.1), (["phone"], 1.0)], ids=["alone", "two"])
def test_a_lost_answer_has_a_second_to_be_taken_up_where_another_waits(
    make_router: RouterMaker, names: list[str], seconds: float
) -> None:
    others = [ScriptedBackend(name) for name in names]

    async def main() -> None:
        async with make_router(SlowToResume(), *others, policy=NO_HEDGE) as router:
            await learn(router, "cloud")
            answer = await router.generate("Hello", data_class="public", latency_budget=60.0)
            assert answer.backend == [*names, "cloud"][0]
            lost, resumed, *_ = answer.decision.attempts
            assert resumed.reason == "resume"
            assert lost.ended is not None
            assert resumed.ended is not None
            assert resumed.ended - lost.ended == pytest.approx(seconds, abs=0.15)

    run_in_virtual_time(main())
