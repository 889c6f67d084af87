"""An answer that begins anew: only where the call asks for it, and said so that what was shown can be taken back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from edgewise.backends import Capabilities
from edgewise.core.content import GenerateInput
from edgewise.core.request import Task
from edgewise.router import (
    AsyncRouter,
    AttemptError,
    BackendError,
    Chunk,
    DeadlineExceeded,
    FailureKind,
    InvalidRequest,
    PartialAnswer,
    Seam,
    Usage,
)
from edgewise.router.execution.breaker import FAILURES_TO_OPEN
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import BROKEN, RouterMaker

TWO_AND_BROKEN = Script(words=("one ", "two ", "three"), failure=BROKEN, fails_after=2)
CANNOT_CONTINUE = Capabilities(tasks=frozenset(Task), constrains=True, logprobs=True, max_concurrency=64)
HELD_TO_A_FORMAT: dict[str, Any] = {"response_format": {"type": "json_object"}}


async def collect(router: AsyncRouter, **options: Any) -> list[Chunk]:
    """What a reader shows: all chunks since the last seam that restarts."""
    shown: list[Chunk] = []
    async for chunk in router.stream("Hello", data_class="public", **{"stream_failover": "restart", **options}):
        if chunk.seam is not None and chunk.seam.restarts:
            shown.clear()
        shown.append(chunk)
    return shown


def received(backend: ScriptedBackend, call: int = -1) -> GenerateInput:
    content = backend.calls[call].content
    assert isinstance(content, GenerateInput)
    return content


def test_it_begins_anew_where_nobody_can_continue_and_the_seam_says_so(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", TWO_AND_BROKEN), ScriptedBackend("phone", Script(words=("uno ", "dos")))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            shown = await collect(router, max_output_tokens=50, **HELD_TO_A_FORMAT)
        assert "".join(chunk.text for chunk in shown) == "uno dos"
        seam = Seam("cloud", "phone", "cloud failed: unreachable", restarts=True)
        assert [chunk.seam for chunk in shown] == [seam, None, None]
        answer = shown[-1].answer
        assert answer is not None
        assert (answer.text, answer.backend, answer.model) == ("uno dos", "phone", "phone-model")
        assert answer.usage == Usage(prompt_tokens=1, output_tokens=2)
        assert answer.decision.seams == [seam]
        assert "seam: cloud -> phone, begun anew, cloud failed: unreachable" in answer.decision.explain()
        assert [attempt.output_tokens for attempt in answer.decision.attempts] == [2, 2]

    run_in_virtual_time(main())
    assert [message.text for message in received(phone).messages] == ["Hello"]
    assert received(phone).max_output_tokens == 50


def test_whoever_can_continue_does(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", TWO_AND_BROKEN), ScriptedBackend("phone", Script(words=("three",)))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            shown = await collect(router)
        assert "".join(chunk.text for chunk in shown) == "one two three"
        assert [chunk.seam.restarts for chunk in shown if chunk.seam is not None] == [False]

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("by_call", "by_policy", "ending"),
    [
        (None, "continue", "partial"),
        ("continue", "continue", "partial"),
        ("none", "continue", "partial"),
        ("restart", "none", "anew"),
    ],
)
def test_only_the_call_may_ask_for_it(
    make_router: RouterMaker, by_call: str | None, by_policy: str, ending: str
) -> None:
    cloud, phone = ScriptedBackend("cloud", TWO_AND_BROKEN), ScriptedBackend("phone")
    policy = f"  resilience: {{stream_failover: {by_policy}}}\n"

    async def main() -> None:
        async with make_router(cloud, phone, policy=policy) as router:
            if ending == "anew":
                assert (await collect(router, stream_failover=by_call, **HELD_TO_A_FORMAT))[-1].answer is not None
            else:
                with pytest.raises(PartialAnswer) as caught:
                    await collect(router, stream_failover=by_call, **HELD_TO_A_FORMAT)
                assert caught.value.partial == "one two "

    run_in_virtual_time(main())
    assert len(phone.calls) == (1 if ending == "anew" else 0)


@pytest.mark.parametrize(("by_call", "continues"), [("none", False), ("continue", True)])
def test_the_call_wins_over_the_policy_in_continuing_too(
    make_router: RouterMaker, by_call: str, continues: bool
) -> None:
    cloud, phone = ScriptedBackend("cloud", TWO_AND_BROKEN), ScriptedBackend("phone", Script(words=("three",)))
    policy = f"  resilience: {{stream_failover: {'none' if continues else 'continue'}}}\n"

    async def main() -> None:
        async with make_router(cloud, phone, policy=policy) as router:
            if continues:
                assert (await collect(router, stream_failover=by_call))[-1].answer is not None
            else:
                with pytest.raises(PartialAnswer):
                    await collect(router, stream_failover=by_call)

    run_in_virtual_time(main())


def test_stop_sequences_and_logprobs_are_of_the_new_text_alone(make_router: RouterMaker) -> None:
    """Half of a stop sequence was held back when the first stream broke; its other half would not complete it."""
    cloud = ScriptedBackend("cloud", Script(words=("one ", "EN", "x"), failure=BROKEN, fails_after=2))
    phone = ScriptedBackend("phone", Script(words=("D uno ", "END", " dos")), capabilities=CANNOT_CONTINUE)

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            shown = await collect(router, stop="END", logprobs=0)
        answer = shown[-1].answer
        assert answer is not None
        assert answer.text == "D uno " == "".join(chunk.text for chunk in shown)
        assert answer.logprobs == ()

    run_in_virtual_time(main())


def test_text_that_was_only_held_back_was_never_shown_so_there_is_no_seam(make_router: RouterMaker) -> None:
    """Without the caller's leave: nothing has to be taken back."""
    cloud = ScriptedBackend("cloud", Script(words=("EN", "x"), failure=BROKEN, fails_after=1))
    phone = ScriptedBackend("phone", Script(words=("uno",)))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            shown = await collect(router, stop="END", stream_failover="none", **HELD_TO_A_FORMAT)
        assert "".join(chunk.text for chunk in shown) == "uno"
        assert [chunk.seam for chunk in shown if chunk.seam is not None] == []

    run_in_virtual_time(main())


def test_where_nobody_else_is_left_the_same_backend_begins_anew_once(make_router: RouterMaker) -> None:
    """Paid as a retry, after a pause; one whose engine crashed is not asked again."""
    scripts = [TWO_AND_BROKEN, Script(words=("uno ", "dos"))]
    cloud = ScriptedBackend("cloud", lambda number: scripts[number])
    crash = AttemptError(FailureKind.CRASHED, "it crashed")
    phone = ScriptedBackend("phone", Script(failure=crash, fails_after=1))

    async def main() -> None:
        async with make_router(cloud) as router:
            tokens = router.stats().backends["cloud"].retry_tokens.retries
            shown = await collect(router)
            answer = shown[-1].answer
            assert answer is not None
            assert answer.text == "uno dos"
            assert [seam.restarts for seam in answer.decision.seams] == [True]
            assert router.stats().backends["cloud"].retry_tokens.retries < tokens
        async with make_router(phone) as router:
            with pytest.raises(PartialAnswer):
                await collect(router)
        assert len(phone.calls) == 1

    run_in_virtual_time(main())


def test_where_beginning_anew_fails_too_the_text_that_was_shown_is_handed_over(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", TWO_AND_BROKEN)
    phone = ScriptedBackend("phone", Script(failure=AttemptError(FailureKind.CRASHED, "it crashed")))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            with pytest.raises(PartialAnswer) as caught:
                await collect(router, **HELD_TO_A_FORMAT)
        assert caught.value.partial == "one two "
        assert "it crashed" in str(caught.value)

    run_in_virtual_time(main())


def test_the_budget_holds_for_all_beginnings_together(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", TWO_AND_BROKEN)
    phone = ScriptedBackend("phone", Script(words=("uno ", "dos ", "tres"), first_after=0.5, every=10.0))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            begun = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineExceeded) as caught:
                await collect(router, latency_budget=3.0, **HELD_TO_A_FORMAT)
            assert asyncio.get_running_loop().time() - begun <= 3.05
        # What the caller shows now: the new text so far.
        assert caught.value.partial == "uno "

    run_in_virtual_time(main())


def test_neither_a_filter_nor_a_request_that_must_not_run_twice_begins_anew(make_router: RouterMaker) -> None:
    filtered = AttemptError(FailureKind.CONTENT_FILTER, "the provider refuses this content")
    cloud = ScriptedBackend(
        "cloud", lambda number: Script(failure=filtered, fails_after=1) if number else TWO_AND_BROKEN
    )
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            with pytest.raises(PartialAnswer):
                await collect(router, idempotent=False)
            with pytest.raises(PartialAnswer, match="refuses this content"):
                await collect(router)

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_filter_that_speaks_before_any_text_is_shown_ends_the_request(make_router: RouterMaker) -> None:
    filtered = AttemptError(FailureKind.CONTENT_FILTER, "the provider refuses this content")
    cloud = ScriptedBackend("cloud", Script(words=("EN", "x"), failure=filtered, fails_after=1))
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            with pytest.raises(BackendError, match="refuses this content"):
                await collect(router, stop="END")

    run_in_virtual_time(main())
    assert phone.calls == []


def test_only_a_stream_has_the_option(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            options: dict[str, Any] = {"stream_failover": "restart"}
            with pytest.raises(InvalidRequest, match="takes no option 'stream_failover'"):
                await router.generate("Hello", **options)
            with pytest.raises(InvalidRequest, match="give one of: continue, restart, none"):
                await collect(router, stream_failover="again")

    run_in_virtual_time(main())


def test_a_new_beginning_that_shows_nothing_before_it_breaks_is_not_forgotten(make_router: RouterMaker) -> None:
    """Who could have continued was not to be had at first. It gives the whole answer, so what was shown is void."""
    cloud = ScriptedBackend("cloud", TWO_AND_BROKEN)
    gateway = ScriptedBackend("gateway", Script(words=("##", "uno"), every=0.2, failure=BROKEN, fails_after=1))
    phone = ScriptedBackend("phone", Script(words=("uno ", "dos")))

    async def main() -> None:
        shown: list[Chunk] = []
        async with make_router(cloud, gateway, phone) as router:
            fleet = router._started().fleet
            fleet["gateway"].terms = replace(fleet["gateway"].terms, continues=False)
            async for chunk in router.stream("Hello", data_class="public", stop="###", stream_failover="restart"):
                if not shown:
                    for _ in range(FAILURES_TO_OPEN):
                        fleet["phone"].breaker.failed(object(), BROKEN)
                    asyncio.get_running_loop().call_later(0.1, fleet["phone"].breaker.try_now)
                if chunk.seam is not None and chunk.seam.restarts:
                    shown.clear()
                shown.append(chunk)
        answer = shown[-1].answer
        assert answer is not None
        assert (answer.text, answer.backend) == ("##uno dos", "phone")
        assert "".join(chunk.text for chunk in shown) == answer.text

    run_in_virtual_time(main())


def test_the_text_so_far_stays_the_answers_until_the_new_one_shows_something(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", TWO_AND_BROKEN)
    gateway = ScriptedBackend("gateway", Script(words=("##", "uno"), failure=BROKEN, fails_after=1))

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            with pytest.raises(PartialAnswer) as caught:
                await collect(router, stop="###", **HELD_TO_A_FORMAT)
        assert caught.value.partial == "one two "

    run_in_virtual_time(main())
