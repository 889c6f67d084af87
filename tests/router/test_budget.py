"""Every request ends within its budget, and the last resort starts in time to keep it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.router import DeadlineExceeded, FailureKind, Overloaded
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker

SILENT = Script(silent_after=0)


def test_a_silent_server_is_hedged_and_then_overtaken_in_time(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, phone) as router:
            # The prior for a device is slow; a few answers teach how fast this one is.
            for _ in range(10):
                await router.generate("Hello", data_class="secret")
            starts = []
            for _ in range(3):
                started = loop.time()
                answer = await router.generate("Hello", data_class="public", latency_budget=20.0)
                assert answer.backend == "phone"
                assert loop.time() - started <= 20.0
                starts.append(answer.decision.attempts[1].started)
        # Two hedges, when the first token should have been there; a third has no token, and the device is the last
        # resort, which no budget refuses, at its last safe moment.
        assert starts[0] < 1.0
        assert starts[1] < 5.0
        assert 15.0 < starts[2] < 20.0

    run_in_virtual_time(main())
    assert [call.outcome for call in cloud.calls] == [["cancelled"]] * 3


def test_an_outage_is_not_made_worse_by_retries(make_router: RouterMaker) -> None:
    from edgewise.router import AttemptError, BackendError

    busy = Script(failure=AttemptError(FailureKind.OVERLOADED, "no room"), first_after=0.001)
    cloud = ScriptedBackend("cloud", busy)

    async def main() -> None:
        async with make_router(cloud) as router:
            for _ in range(1000):
                with pytest.raises((BackendError, Overloaded)):
                    await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert 1000 < len(cloud.calls) < 1230


def test_hedges_are_few_under_load_and_none_where_a_request_must_not_run_twice(make_router: RouterMaker) -> None:
    # Every tenth answer is slow, so that each of them would be worth a hedge.
    cloud = ScriptedBackend("cloud", lambda number: Script(first_after=5.0 if number % 10 == 9 else 0.1))
    gateway = ScriptedBackend("gateway", Script(first_after=0.1))

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            for _ in range(50):
                await router.generate("Hello", data_class="public", idempotent=False)
            assert gateway.calls == []
            for _ in range(400):
                await router.generate("Hello", data_class="public")

    run_in_virtual_time(main())
    assert 2 <= len(gateway.calls) < 40


@pytest.mark.parametrize("budget", [0.05, 0.5, 3.0])
def test_a_request_nobody_answers_ends_at_its_deadline(make_router: RouterMaker, budget: float) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone", SILENT)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, phone) as router:
            for call in (
                router.generate("Hello", data_class="public", latency_budget=budget),
                router.embed(["Hello"], data_class="public", latency_budget=budget),
                anext(router.stream("Hello", data_class="public", latency_budget=budget)),
            ):
                started = loop.time()
                with pytest.raises(DeadlineExceeded):
                    await call
                assert loop.time() - started <= budget + 1e-6

    run_in_virtual_time(main())


def test_the_first_token_budget_of_a_stream_is_hard(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=1.0))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud) as router:
            started = loop.time()
            with pytest.raises(DeadlineExceeded, match="first token"):
                async for _ in router.stream("Hello", data_class="public", first_token_budget="300ms"):
                    pass
            assert loop.time() - started == pytest.approx(0.3)

    run_in_virtual_time(main())
    assert cloud.calls[0].outcome == ["cancelled"]


def test_a_deadline_within_the_answer_hands_over_the_text_so_far(make_router: RouterMaker) -> None:
    slow = Script(words=("one ", "two ", "three ", "four "), first_after=0.1, every=0.4)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", slow)) as router:
            with pytest.raises(DeadlineExceeded) as whole:
                await router.generate("Hello", data_class="public", latency_budget=1.0)
            assert whole.value.partial == "one two three "
            seen = ""
            with pytest.raises(DeadlineExceeded) as streamed:
                async for chunk in router.stream("Hello", data_class="public", latency_budget=1.0):
                    seen += chunk.text
            assert seen == streamed.value.partial == "one two three "

    run_in_virtual_time(main())


def test_a_slow_reader_s_time_is_not_the_stream_s(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=tuple("abcdef"), every=0.1))

    async def main() -> None:
        text = ""
        async with make_router(cloud) as router:
            async for chunk in router.stream("Hello", data_class="public", latency_budget=1.0):
                text += chunk.text
                await asyncio.sleep(1.0)
        assert text == "abcdef"

    run_in_virtual_time(main())


def test_waiting_for_a_slot_counts_as_time(make_router: RouterMaker) -> None:
    from edgewise.backends import Capabilities
    from edgewise.core.request import Task

    one_at_a_time = Capabilities(tasks=frozenset({Task.GENERATE}), max_concurrency=1)
    phone = ScriptedBackend("phone", Script(first_after=0.4), capabilities=one_at_a_time)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(phone) as router:
            started = loop.time()
            results = await asyncio.gather(
                *(router.generate("Hello", data_class="secret", latency_budget=1.0) for _ in range(4)),
                return_exceptions=True,
            )
            assert loop.time() - started <= 1.0 + 1e-6
            assert [isinstance(result, DeadlineExceeded) for result in results] == [False, False, True, True]

    run_in_virtual_time(main())
    assert len(phone.calls) == 3  # the fourth never got the slot


def test_a_cancelled_call_stops_the_work_and_stays_cancelled(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", SILENT), ScriptedBackend("phone", SILENT)

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            call = asyncio.create_task(router.generate("Hello", data_class="public", latency_budget=100.0))
            await asyncio.sleep(0.5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0)

    run_in_virtual_time(main())
    assert cloud.calls[0].outcome == ["cancelled"]


def test_a_backend_that_is_slow_to_stop_holds_nobody_up(make_router: RouterMaker) -> None:
    class Stubborn(ScriptedBackend):
        async def generate(self, call, context):  # type: ignore[no-untyped-def]
            try:
                async for event in super().generate(call, context):
                    yield event
            finally:
                await asyncio.sleep(2.0)

    stalled = Script(words=("one ", "two"), silent_after=1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(Stubborn("cloud", stalled)) as router:
            for _ in range(2):
                started = loop.time()
                with pytest.raises(DeadlineExceeded):
                    async for _ in router.stream("Hello", data_class="public", latency_budget=1.0):
                        pass
                assert loop.time() - started < 1.05

    run_in_virtual_time(main())


def test_a_decision_is_complete_when_it_is_handed_out(make_router: RouterMaker) -> None:
    from edgewise.router import FailureKind

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", SILENT), ScriptedBackend("phone", SILENT)) as router:
            with pytest.raises(DeadlineExceeded) as late:
                await router.generate("Hello", data_class="public", latency_budget=1.0)
            assert {attempt.failure for attempt in late.value.decision.attempts} <= {
                FailureKind.PREEMPTED,
                FailureKind.TIMED_OUT,
            }
            assert all(attempt.ended is not None for attempt in late.value.decision.attempts)

    run_in_virtual_time(main())


def test_a_slow_reader_does_not_hold_the_backend(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=tuple("abcdefghij"), every=0.01))

    async def main() -> None:
        async with make_router(cloud) as router:
            chunks = router.stream("Hello", data_class="public", latency_budget=1.0)
            text = (await anext(chunks)).text
            await asyncio.sleep(10.0)
            assert cloud.calls[0].outcome == ["answered"]  # long before the reader came back
            async for chunk in chunks:
                text += chunk.text
            assert text == "abcdefghij"

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("word", "pieces", "most_ahead"),
    [("x", 10_000, 4096), ("x" * 50_000, 200, 20)],
    ids=["many small pieces", "large pieces"],
)
def test_what_waits_for_a_slow_reader_is_bounded_and_all_of_it_arrives(
    make_router: RouterMaker, word: str, pieces: int, most_ahead: int
) -> None:
    """By the number of pieces and by the text in them: a server may send as much as it likes in one."""
    sent = 0

    class Counting(ScriptedBackend):
        async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            nonlocal sent
            for _ in range(pieces):
                sent += 1
                yield Delta(word)
            yield Finish(FinishReason.STOP)

    async def main() -> None:
        read = 0
        async with make_router(Counting("cloud")) as router:
            async for chunk in router.stream("Hello", data_class="public", max_output_tokens=pieces):
                if read % (pieces // 10) == 0:
                    await asyncio.sleep(1.0)
                assert sent - read <= most_ahead + 2
                read += bool(chunk.text)
        assert read == sent == pieces

    run_in_virtual_time(main())


def test_nobody_waits_out_a_long_pushback_beside_an_idle_device(make_router: RouterMaker) -> None:
    from edgewise.router import AttemptError, FailureKind

    busy = Script(failure=AttemptError(FailureKind.OVERLOADED, "no room", retry_after=5.0))

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", busy), ScriptedBackend("phone")) as router:
            answer = await router.generate("Hello", data_class="public")
            assert answer.backend == "phone"
            assert answer.decision.ended is not None
            assert answer.decision.ended < 0.1

    run_in_virtual_time(main())


def test_a_guess_about_the_device_does_not_deny_it_beside_a_silent_server(make_router: RouterMaker) -> None:
    from edgewise.backends import Capabilities
    from edgewise.core.request import Task

    one_at_a_time = Capabilities(tasks=frozenset({Task.GENERATE}), max_concurrency=1)
    phone = ScriptedBackend("phone", Script(first_after=0.1), capabilities=one_at_a_time)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", SILENT), phone) as router:
            calls = (router.generate("Hello", data_class="public", latency_budget=4.0) for _ in range(30))
            answers = await asyncio.gather(*calls)
            assert {answer.backend for answer in answers} == {"phone"}

    run_in_virtual_time(main())


def test_a_server_that_falls_silent_within_its_answer_is_overtaken_long_before_the_deadline(
    make_router: RouterMaker,
) -> None:
    cloud = ScriptedBackend("cloud", Script(words=("a ", "long ", "answer"), silent_after=2))
    gateway = ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            started = asyncio.get_running_loop().time()
            answer = await router.generate("Hello", data_class="public", latency_budget=60.0)
            assert answer.backend == "gateway"
            assert "long" not in answer.text
            assert asyncio.get_running_loop().time() - started < 12.0
            silent, _ = answer.decision.attempts
            assert silent.failure is FailureKind.STALLED

    run_in_virtual_time(main())
    assert [call.outcome for call in cloud.calls] == [["cancelled"]]


@pytest.mark.parametrize("others", [0, 1])
def test_a_pause_within_an_answer_is_waited_out_where_nobody_may_answer_instead(
    make_router: RouterMaker, others: int
) -> None:
    cloud = ScriptedBackend("cloud", Script(words=("a ", "slow ", "answer"), every=15.0))
    fleet = [cloud, *[ScriptedBackend("gateway") for _ in range(others)]]

    async def main() -> None:
        async with make_router(*fleet) as router:
            answer = await router.generate("Hello", data_class="public", latency_budget=60.0, idempotent=not others)
            assert answer.backend == "cloud"

    run_in_virtual_time(main())
