"""A conversation keeps its backend while that one is good, and moves whole when it is not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from edgewise.core.content import GenerateInput
from edgewise.router import Answer, AsyncRouter, AttemptError, FailureKind, Message, NoBackendPermitted, RefusalCode
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker

BROKEN = AttemptError(FailureKind.INTERNAL, "it failed")


async def ask(router: AsyncRouter, prompt: str | list[Message] = "Hello", **options: Any) -> Answer:
    return await router.generate(prompt, **{"data_class": "public", "conversation": "c1", **options})


def texts(backend: ScriptedBackend) -> list[str]:
    content = backend.calls[-1].content
    assert isinstance(content, GenerateInput)
    return [message.text for message in content.messages]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_a_conversation_stays_where_it_is_and_the_plan_says_why(make_router: RouterMaker, streaming: bool) -> None:
    cloud, gateway = ScriptedBackend("cloud"), ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(cloud, gateway) as router:
            if streaming:
                prompt = router.stream("Hello", data_class="public", conversation="c1", backend="gateway")
                assert [chunk async for chunk in prompt]
            else:
                await ask(router, backend="gateway")
            planned = await router.plan("Hello", data_class="public", conversation="c1")
            assert planned.steps[0].reason == "before cloud: it has the conversation so far"
            assert planned.steps[1].reason == "after gateway: that one has the conversation so far"
            assert (await ask(router)).backend == "gateway"
            # Neither another conversation nor a request without one is drawn along.
            assert (await ask(router, conversation="c2")).backend == "cloud"
            assert (await router.generate("Hello", data_class="public")).backend == "cloud"

    run_in_virtual_time(main())


def test_it_moves_with_its_whole_history_when_its_backend_fails_and_stays_there(make_router: RouterMaker) -> None:
    """The two are equally good, so whoever has the history keeps it."""
    policy = "  rules:\n    - {name: at first, when: request.prompt_tokens < 12, prefer: [gateway]}\n"
    gateway = ScriptedBackend("gateway", lambda number: Script(failure=BROKEN) if number == 1 else Script())
    cloud = ScriptedBackend("cloud")
    history = [Message.user("Hello"), Message.assistant("Good day."), Message.user("And the weather?")]

    async def main() -> None:
        async with make_router(cloud, gateway, policy=policy) as router:
            assert (await ask(router)).backend == "gateway"
            moved = await ask(router, history)
            assert moved.backend == "cloud"
            assert texts(cloud) == [message.text for message in history]
            assert (await ask(router, history)).backend == "cloud"

    run_in_virtual_time(main())


def test_a_worse_stand_in_does_not_keep_it(make_router: RouterMaker) -> None:
    """One bad minute of the better backend's would otherwise cost all that follows its quality."""
    cloud = ScriptedBackend("cloud", lambda number: Script(failure=BROKEN) if number == 0 else Script())

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            assert (await ask(router)).backend == "phone"
            assert (await ask(router)).backend == "cloud"
            router.connectivity.force("offline")
            assert (await ask(router)).backend == "phone"
            router.connectivity.force(None)
            assert (await ask(router)).backend == "cloud"

    run_in_virtual_time(main())


def test_a_stand_in_that_is_as_good_keeps_it(make_router: RouterMaker) -> None:
    gemini = ScriptedBackend("gemini", lambda number: Script(failure=BROKEN) if number == 0 else Script())

    async def main() -> None:
        async with make_router(gemini, ScriptedBackend("cloud")) as router:
            assert (await ask(router)).backend == "cloud"
            assert (await ask(router)).backend == "cloud"
            assert (await ask(router, conversation="c2")).backend == "gemini"

    run_in_virtual_time(main())


def test_what_rules_prefer_and_avoid_comes_before_staying(make_router: RouterMaker) -> None:
    policy = """  rules:
    - {name: the ward, when: 'request.tags.?department.orValue("") == "ward"', prefer: [cloud]}
    - {name: the office, when: 'request.tags.?department.orValue("") == "office"', avoid: [gateway]}
"""
    policy = policy.replace('request.tags.?department.orValue("")', 'request.tags["department"]')

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), ScriptedBackend("gateway"), policy=policy) as router:
            for department in ("ward", "office"):
                await ask(router, backend="gateway", tags={"department": "ward"})
                assert (await ask(router, tags={"department": department})).backend == "cloud"

    run_in_virtual_time(main())


def test_a_conversation_that_outgrows_its_backend_goes_where_it_fits(make_router: RouterMaker) -> None:
    """By the estimate where that is beyond doubt, else by the backend's own count; never to the small one again."""
    too_long = AttemptError(FailureKind.CONTEXT_LENGTH, "too long")
    phone = ScriptedBackend("phone", lambda number: Script() if number == 0 else Script(failure=too_long))
    gateway = ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(gateway, phone) as router:
            assert (await ask(router, backend="phone")).backend == "phone"
            counted = await ask(router, "word " * 1000)
            assert [attempt.failure for attempt in counted.decision.attempts] == [FailureKind.CONTEXT_LENGTH, None]
            assert counted.backend == "gateway"
            estimated = await ask(router, "word " * 4000)
            assert estimated.backend == "gateway"
            assert {refusal.code for refusal in estimated.decision.refusals} == {RefusalCode.CONTEXT_LENGTH}
        assert len(phone.calls) == 2

    run_in_virtual_time(main())


def test_a_wall_moves_it_too(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), ScriptedBackend("phone")) as router:
            assert (await ask(router)).backend == "cloud"
            assert (await ask(router, data_class="secret")).backend == "phone"
            assert (await ask(router)).backend == "phone"

    run_in_virtual_time(main())


def test_what_is_asked_meanwhile_has_the_classes_of_an_inference_whose_arrays_are_being_made(
    make_router: RouterMaker,
) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            inferring = asyncio.create_task(
                router.infer("model", {"x": [[1.0, 2.0]]}, data_class="secret", conversation="c1", backend="phone")
            )
            await asyncio.sleep(0)
            answer = await ask(router)
            assert (answer.backend, answer.decision.data_classes) == ("phone", ("public", "secret"))
            await asyncio.gather(inferring, return_exceptions=True)

    run_in_virtual_time(main())
    assert not cloud.calls


@pytest.mark.parametrize("first", ["generate", "embed", "infer", "count_tokens", "refused"])
def test_a_caller_s_narrowing_holds_for_all_that_follows(make_router: RouterMaker, first: str) -> None:
    """The history of that turn goes along with each later one, whatever kind of work had brought it."""
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            assert (await router.plan("Hello", data_class="public", conversation="c1")).steps[0].backend == "cloud"
            options: Any = {"data_class": "public", "conversation": "c1", "residency": {"process_in": ["DE"]}}
            with contextlib.suppress(NoBackendPermitted):  # it counts whatever became of it
                if first == "generate":
                    await router.generate("Hello", **options)
                elif first == "embed":
                    await router.embed(["Hello"], **options)
                elif first == "infer":
                    await router.infer("model", {"x": [1.0]}, **options)
                elif first == "count_tokens":
                    await router.count_tokens("Hello", **options)
                else:
                    await router.generate("Hello", **options, backend="cloud")
            answer = await ask(router)
            assert answer.backend == "phone"
            assert [refusal.code for refusal in answer.decision.refusals] == [RefusalCode.RESIDENCY]
            assert "the caller's residency" in answer.decision.refusals[0].sentence
            # What a later turn gives narrows further, and never widens.
            assert (await ask(router, residency={"process_in": ["any"]})).backend == "phone"
            with pytest.raises(NoBackendPermitted):
                await ask(router, backend="cloud", residency={"process_in": ["NL", "DE"]})
            # Neither a plan nor another conversation is bound, or binds.
            await router.plan("Hello", data_class="public", conversation="c2", residency={"process_in": ["DE"]})
            assert (await ask(router, conversation="c2")).backend == "cloud"
        assert len(cloud.calls) == 1

    run_in_virtual_time(main())


def test_narrowings_of_several_turns_meet(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            wide: list[dict[str, list[str]]] = [{"process_in": ["NL", "DE"]}, {"operators": ["US"]}]
            for residency in wide:
                assert (await ask(router, residency=residency)).backend == "cloud"
            assert (await ask(router)).backend == "cloud"
            await ask(router, residency={"process_in": ["DE", "FR"]})
            refusal = (await ask(router)).decision.refusals[0]
            assert "permits process_in [DE]" in refusal.sentence

    run_in_virtual_time(main())
