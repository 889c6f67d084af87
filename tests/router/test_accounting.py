"""What an answer cost, and what its failed attempts did."""

from __future__ import annotations

import pytest

from edgewise.backends import Capabilities
from edgewise.core.request import Task
from edgewise.router import Answer, AsyncRouter, Usage
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import BROKEN, RouterMaker

CLOUD_INPUT, CLOUD_OUTPUT = 1.0e-6, 10.0e-6
GATEWAY_INPUT, GATEWAY_OUTPUT = 0.5e-6, 5.0e-6
HELLO = 10
"""What the router takes a prompt of five letters for, in tokens."""


async def _whole(router: AsyncRouter, *, stop: str) -> Answer:
    return await router.generate("Hello", data_class="public", stop=stop)


async def _streamed(router: AsyncRouter, *, stop: tuple[str, ...] | str = ()) -> Answer:
    chunks = [chunk async for chunk in router.stream("Hello", data_class="public", stop=stop)]
    answer = chunks[-1].answer
    assert answer is not None
    return answer


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_an_answer_costs_what_its_tokens_do_by_the_price_of_who_answered(
    make_router: RouterMaker, streaming: bool
) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            answer = await (_streamed(router) if streaming else router.generate("Hello", data_class="public"))
        assert answer.usage == Usage(prompt_tokens=1, output_tokens=3)
        assert answer.cost == pytest.approx(CLOUD_INPUT + 3 * CLOUD_OUTPUT)
        (attempt,) = answer.decision.attempts
        assert (attempt.prompt_tokens, attempt.output_tokens, attempt.cost) == (1, 3, answer.cost)
        assert answer.decision.cost == answer.cost
        assert "1 + 3 tokens, $0.000031" in answer.decision.explain()

    run_in_virtual_time(main())


def test_without_a_price_there_is_no_cost(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("phone")) as router:
            answer = await router.generate("Hello")
        assert answer.cost is None
        assert answer.decision.cost is None
        assert answer.decision.attempts[0].output_tokens == 3

    run_in_virtual_time(main())


def test_the_failed_attempts_are_listed_apart_with_the_tokens_that_came(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(words=("one ", "two ", "three"), failure=BROKEN, fails_after=2))
    gateway = ScriptedBackend("gateway", Script(words=("three ", "four")))

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            answer = await _streamed(router)
        assert (answer.text, answer.backend, answer.model) == ("one two three four", "gateway", "gateway-model")
        # The continuation's prompt has a second message, the text so far.
        assert answer.usage == Usage(prompt_tokens=2, output_tokens=2)
        assert answer.cost == pytest.approx(2 * GATEWAY_INPUT + 2 * GATEWAY_OUTPUT)
        failed, _ = answer.decision.attempts
        assert (failed.backend, failed.prompt_tokens, failed.output_tokens) == ("cloud", HELLO, 2)
        assert failed.cost == pytest.approx(HELLO * CLOUD_INPUT + 2 * CLOUD_OUTPUT)
        assert answer.decision.cost == pytest.approx(
            2 * GATEWAY_INPUT + 2 * GATEWAY_OUTPUT + HELLO * CLOUD_INPUT + 2 * CLOUD_OUTPUT
        )

    run_in_virtual_time(main())


def test_whoever_refuses_charges_nothing_and_whoever_reads_and_is_stopped_does(make_router: RouterMaker) -> None:
    async def main() -> None:
        refusing, silent = ScriptedBackend("cloud", Script(failure=BROKEN)), Script(silent_after=0)
        async with make_router(refusing, ScriptedBackend("gateway")) as router:
            answer = await router.generate("Hello", data_class="public")
        refused = answer.decision.attempts[0]
        assert (refused.backend, refused.prompt_tokens, refused.cost) == ("cloud", 0, 0.0)
        async with make_router(ScriptedBackend("cloud", silent), ScriptedBackend("gateway")) as router:
            answer = await router.generate("Hello", data_class="public")
        stopped = answer.decision.attempts[0]
        assert (stopped.backend, stopped.prompt_tokens, stopped.output_tokens) == ("cloud", HELLO, 0)
        assert stopped.cost == pytest.approx(HELLO * CLOUD_INPUT)

    run_in_virtual_time(main())


def test_an_answer_cut_at_a_stop_sequence_pays_for_the_prompt_too(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            answer = await router.generate("Hello", data_class="public", stop="scripted")
        assert (answer.text, answer.usage) == ("a ", Usage(prompt_tokens=0, output_tokens=2))
        assert answer.cost == pytest.approx(HELLO * CLOUD_INPUT + 2 * CLOUD_OUTPUT)

    run_in_virtual_time(main())


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_a_resumed_stream_is_paid_for_once(make_router: RouterMaker, streaming: bool) -> None:
    """The service counts the whole stream at its end; the attempts whose connection was lost have their part of it."""
    resumes = Capabilities(frozenset(Task), continues=True, resumes=True, max_concurrency=8)
    words = ("one ", "two ", "three ", "four")
    cloud = ScriptedBackend("cloud", Script(words, lost_after=(1, 3)), capabilities=resumes)

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await (_streamed(router) if streaming else router.generate("Hello", data_class="public"))
        assert answer.text == "".join(words)
        attempts = answer.decision.attempts
        assert [attempt.output_tokens for attempt in attempts] == [1, 2, 1]
        assert [attempt.prompt_tokens for attempt in attempts] == [HELLO, 0, 0]
        assert answer.cost == pytest.approx(HELLO * CLOUD_INPUT + 4 * CLOUD_OUTPUT)
        assert answer.decision.cost == pytest.approx(answer.cost)

    run_in_virtual_time(main())


def test_embeddings_have_their_cost(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            vectors = await router.embed(["Hello"], data_class="public")
        assert vectors.cost == pytest.approx(HELLO * CLOUD_INPUT)

    run_in_virtual_time(main())


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_a_resumed_stream_that_is_cut_at_a_stop_sequence_counts_all_its_tokens(
    make_router: RouterMaker, streaming: bool
) -> None:
    resumes = Capabilities(frozenset(Task), continues=True, resumes=True, max_concurrency=8)
    words = ("one ", "two ", "three ", "stop", "five")
    cloud = ScriptedBackend("cloud", Script(words, lost_after=(3,)), capabilities=resumes)

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await (_streamed(router, stop="stop") if streaming else _whole(router, stop="stop"))
        assert (answer.text, answer.usage.output_tokens) == ("one two three ", 4)
        assert [attempt.output_tokens for attempt in answer.decision.attempts] == [3, 1]
        assert answer.cost == pytest.approx(HELLO * CLOUD_INPUT + 4 * CLOUD_OUTPUT)

    run_in_virtual_time(main())
