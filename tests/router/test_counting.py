"""Counting a prompt's tokens: by whom, where never, and beside everything else."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from edgewise.backends import CallContext, Capabilities
from edgewise.core.content import CountTokensInput
from edgewise.core.request import Task
from edgewise.router import (
    BackendError,
    DeadlineExceeded,
    FailureKind,
    InvalidRequest,
    Message,
    NoBackendPermitted,
    RefusalCode,
)
from edgewise.router.execution.breaker import FAILURES_TO_OPEN, BreakerState
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, failing

SECRET = "Patient Zebulon Quartz"
HISTORY = [Message.user(SECRET, data_class="secret"), Message.assistant("Noted."), Message.user("And the weather?")]


def test_a_count_is_a_number_that_knows_who_counted(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("gemini"), ScriptedBackend("phone")) as router:
            counted = await router.count_tokens([Message.system("Be kind."), Message.user("Hi")], data_class="public")
            answer = await router.generate([Message.system("Be kind."), Message.user("Hi")], data_class="public")
            assert counted == answer.usage.prompt_tokens == 2
            assert counted + 1 == 3
            assert counted.backend == "gemini"
            assert counted.decision is not None
            assert counted.decision.task == "count_tokens"
            here = await router.count_tokens("Hi", data_class="public", backend="phone")
            assert (here, here.backend) == (1, "phone")

    run_in_virtual_time(main())


@pytest.mark.parametrize("phone_script", [Script(), failing(FailureKind.CRASHED), Script(silent_after=0)])
def test_a_prompt_that_may_not_leave_is_never_sent_away_to_be_counted(
    make_router: RouterMaker, phone_script: Script
) -> None:
    gemini, phone = ScriptedBackend("gemini"), ScriptedBackend("phone", phone_script)

    async def main() -> None:
        async with make_router(gemini, phone) as router:
            for prompt, data_class in ((SECRET, "secret"), (HISTORY, "public")):
                with suppress(BackendError, DeadlineExceeded):
                    assert (await router.count_tokens(prompt, data_class=data_class)).backend == "phone"
            with pytest.raises(NoBackendPermitted) as refused:
                await router.count_tokens(SECRET, data_class="secret", backend="gemini")
            codes = {refusal.backend: refusal.code for refusal in refused.value.decision.refusals}
            assert codes == {"gemini": RefusalCode.RESIDENCY, "phone": RefusalCode.CALLER_NARROWED}

    run_in_virtual_time(main())
    assert phone.calls
    assert gemini.calls == []


def test_where_nobody_can_count_the_refusal_says_so(make_router: RouterMaker) -> None:
    moods = ScriptedBackend("moods")  # a classifier

    async def main() -> None:
        async with make_router(moods) as router:
            with pytest.raises(NoBackendPermitted, match="moods: it cannot count_tokens"):
                await router.count_tokens("Hello", data_class="public")
            with pytest.raises(InvalidRequest, match="the prompt is empty"):
                await router.count_tokens(" ", data_class="public")
            with pytest.raises(InvalidRequest, match="count_tokens takes no option 'seed'"):
                await router.count_tokens("Hello", seed=1)  # type: ignore[call-arg]

    run_in_virtual_time(main())
    assert moods.calls == []


RULE = """
  rules:
    - name: long prompts stay
      when: request.task == "count_tokens" && request.prompt_tokens > 5000
      only: [device]
    - name: nothing that costs
      set: {max_cost: 0.0001}
"""


def test_rules_see_the_task_and_the_length_and_counting_costs_nothing_and_fits_everywhere(
    make_router: RouterMaker,
) -> None:
    gemini, phone = ScriptedBackend("gemini"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(gemini, phone, policy=RULE) as router:
            middling, long = "word " * 2000, "word " * 4000  # of which a generation would cost too much, and not fit
            assert (await router.count_tokens(middling, data_class="public")).backend == "gemini"
            counted = await router.count_tokens(long, data_class="public")
            assert counted.backend == "phone"
            assert counted.decision is not None
            assert counted.decision.matched_rules == ("long prompts stay", "nothing that costs")
            stats = router.stats().backends["gemini"].attempts
            assert (stats.succeeded, stats.prompt_tokens, stats.cost) == (1, 0, 0.0)
            with pytest.raises(NoBackendPermitted):
                await router.generate(long, data_class="public", backend="gemini")

    run_in_virtual_time(main())


def test_counting_goes_to_the_next_where_one_fails_and_says_nothing_of_generations(make_router: RouterMaker) -> None:
    failures = FAILURES_TO_OPEN + 2
    gemini = ScriptedBackend(
        "gemini", lambda call: failing(FailureKind.INTERNAL) if call < failures else Script(first_after=0.2)
    )

    async def main() -> None:
        async with make_router(gemini, ScriptedBackend("phone")) as router:
            for _ in range(failures):
                assert (await router.count_tokens("Hi", data_class="public")).backend == "phone"
            stats = router.stats().backends
            assert stats["gemini"].breaker.state is BreakerState.CLOSED
            assert stats["gemini"].tasks[Task.GENERATE].observations == 0
            assert stats["phone"].tasks[Task.GENERATE].observations == 0
            assert stats["phone"].tasks[Task.COUNT_TOKENS].observations > 0
            # Its own breaker is open: nobody counts there now, and generations go there still.
            plan = (await router.count_tokens("Hi", data_class="public")).decision
            assert plan is not None
            assert [refusal.backend for refusal in plan.refusals] == ["gemini"]

    run_in_virtual_time(main())


def test_counting_does_not_wait_for_a_generation_nor_a_generation_for_it(make_router: RouterMaker) -> None:
    one = Capabilities(frozenset(Task), max_concurrency=1)
    words = Script(tuple("abcdefghij"), first_after=1.0, every=1.0)
    phone = ScriptedBackend("phone", words, capabilities=one)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with make_router(phone) as router:
            generating = asyncio.create_task(router.generate("Hello", data_class="secret"))
            await asyncio.sleep(0.5)
            began = clock()
            assert await router.count_tokens("Hello", data_class="secret") == 1
            assert clock() - began == pytest.approx(1.0)
            counting = asyncio.create_task(router.count_tokens("Hello", data_class="secret"))
            await asyncio.sleep(0)
            assert not generating.done()
            assert router.stats().backends["phone"].queue.running == 1
            await asyncio.gather(generating, counting)

    run_in_virtual_time(main())


@pytest.mark.parametrize("count", [0, -1])
def test_no_tokens_are_a_count_and_fewer_are_none(make_router: RouterMaker, count: int) -> None:
    class Counting(ScriptedBackend):
        async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
            return count

    async def main() -> None:
        async with make_router(Counting("cloud"), ScriptedBackend("phone")) as router:
            counted = await router.count_tokens("Hello", data_class="public")
            assert counted.backend == ("phone" if count < 0 else "cloud")
            assert counted == (1 if count < 0 else 0)

    run_in_virtual_time(main())
