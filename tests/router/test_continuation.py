"""A stream that breaks in the middle is continued elsewhere, and its text stays whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgewise.core.content import GenerateInput, Role
from edgewise.router import (
    AsyncRouter,
    AttemptError,
    DeadlineExceeded,
    FailureKind,
    FinishReason,
    Message,
    PartialAnswer,
)
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import BROKEN, RouterMaker, collect


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(words=("one ", "two ", "three"), failure=BROKEN, fails_after=2), FailureKind.UNREACHABLE),
        (Script(words=("one ", "two "), ends_without_finish=True), FailureKind.TRUNCATED),
        (Script(words=("one ", "two ", "three"), silent_after=2), FailureKind.STALLED),
    ],
    ids=["error", "cut", "stall"],
)
def test_a_stream_that_breaks_is_continued_on_the_device(
    make_router: RouterMaker, script: Script, kind: FailureKind
) -> None:
    cloud, phone = ScriptedBackend("cloud", script), ScriptedBackend("phone", Script(words=("three ", "four")))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router, latency_budget=10.0, max_output_tokens=50)
        assert "".join(chunk.text for chunk in chunks) == "one two three four"
        seams = [chunk for chunk in chunks if chunk.seam is not None]
        assert [chunk.text for chunk in seams] == ["three "]
        assert seams[0].seam is not None
        assert (seams[0].seam.from_backend, seams[0].seam.to_backend) == ("cloud", "phone")
        answer = chunks[-1].answer
        assert answer is not None
        assert (answer.text, answer.backend) == ("one two three four", "phone")
        assert answer.decision.seams == [seams[0].seam]
        assert [attempt.failure for attempt in answer.decision.attempts] == [kind, None]

    run_in_virtual_time(main())
    continued = phone.calls[0].content
    assert isinstance(continued, GenerateInput)
    assert (continued.messages[-1].role, continued.messages[-1].text) == (Role.ASSISTANT, "one two ")
    assert continued.max_output_tokens == 48


def test_before_the_first_token_failing_over_is_invisible(make_router: RouterMaker) -> None:
    cloud, phone = ScriptedBackend("cloud", Script(failure=BROKEN)), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router)
        assert "".join(chunk.text for chunk in chunks) == "a scripted answer"
        assert all(chunk.seam is None for chunk in chunks)

    run_in_virtual_time(main())


def test_a_continued_answer_of_the_caller_s_is_continued_once_more(make_router: RouterMaker) -> None:
    script = Script(words=("B", "C"), failure=BROKEN, fails_after=1)
    phone = ScriptedBackend("phone", Script(words=("C",)))

    async def main() -> None:
        prompt = [Message.user("Alphabet?"), Message.assistant("A")]
        async with make_router(ScriptedBackend("cloud", script), phone) as router:
            chunks = [chunk async for chunk in router.stream(prompt, data_class="public")]
        assert "".join(chunk.text for chunk in chunks) == "BC"

    run_in_virtual_time(main())
    content = phone.calls[0].content
    assert isinstance(content, GenerateInput)
    assert [message.text for message in content.messages] == ["Alphabet?", "AB"]


@pytest.mark.parametrize(
    "options",
    [
        {"response_format": {"type": "json_object"}},
        {"logprobs": 0},
        {"idempotent": False},
        {"backend": "cloud"},
    ],
    ids=["constrained", "logprobs", "not idempotent", "one backend alone"],
)
def test_what_cannot_be_continued_hands_over_the_text_so_far(make_router: RouterMaker, options: dict[str, Any]) -> None:
    script = Script(words=("one ", "two"), failure=BROKEN, fails_after=1)
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", script), phone) as router:
            with pytest.raises(PartialAnswer) as caught:
                await collect(router, **options)
        assert caught.value.partial == "one "
        assert "one" not in str(caught.value).split()

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_stream_of_a_walled_class_is_continued_within_its_walls_only(make_router: RouterMaker) -> None:
    gateway = ScriptedBackend("gateway", Script(words=("one ", "two"), failure=BROKEN, fails_after=1))
    cloud, phone = ScriptedBackend("cloud"), ScriptedBackend("phone", Script(words=("two",)))

    async def main() -> None:
        async with make_router(cloud, gateway, phone) as router:
            chunks = [chunk async for chunk in router.stream("Hello", data_class="health")]
        assert "".join(chunk.text for chunk in chunks) == "one two"

    run_in_virtual_time(main())
    assert cloud.calls == []


def test_a_text_that_outgrows_its_backend_goes_to_a_larger_context_only(make_router: RouterMaker) -> None:
    """A partial answer counts as well: what was too long for one place is never tried in a smaller one."""
    full = AttemptError(FailureKind.CONTEXT_LENGTH, "the context is full")
    gateway = ScriptedBackend("gateway", Script(words=("one ", "two ", "three"), failure=full, fails_after=2))
    cloud, phone = ScriptedBackend("cloud", Script(words=("three",))), ScriptedBackend("phone")

    async def main() -> None:
        policy = "  rules:\n    - {name: near, prefer: [gateway]}\n"
        async with make_router(cloud, gateway, phone, policy=policy) as router:
            chunks = await collect(router)
            assert "".join(chunk.text for chunk in chunks) == "one two three"
            with pytest.raises(PartialAnswer):
                await collect(router, backend=["gateway", "phone"])

    run_in_virtual_time(main())
    assert (len(gateway.calls), len(phone.calls)) == (2, 0)


def test_stop_sequences_are_found_across_tokens_and_seams(make_router: RouterMaker) -> None:
    script = Script(words=("keep ", "EN", "x"), failure=BROKEN, fails_after=2)
    phone = ScriptedBackend("phone", Script(words=("D of", " story")))

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", script), phone) as router:
            chunks = await collect(router, stop=["END"])
            answer = chunks[-1].answer
            assert answer is not None
            assert "".join(chunk.text for chunk in chunks) == answer.text == "keep "
            assert answer.finish_reason is FinishReason.STOP
            whole = await router.generate("Hello", data_class="secret", stop="of")
            assert whole.text == "D "

    run_in_virtual_time(main())
    content = phone.calls[0].content
    assert isinstance(content, GenerateInput)
    assert content.messages[-1].text == "keep EN"


def test_a_caller_s_own_cancellation_passes_after_a_stall(make_router: RouterMaker) -> None:
    stalled = Script(words=("one ", "two ", "three"), silent_after=2)
    slow = Script(words=("three ", "four ", "five"), every=5.0)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", stalled), ScriptedBackend("phone", slow)) as router:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3.0):
                    await collect(router, latency_budget=60.0)
            reader = asyncio.create_task(collect(router, latency_budget=60.0))
            await asyncio.sleep(3.0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader

    run_in_virtual_time(main())


def test_a_stream_that_breaks_after_its_last_token_is_whole(make_router: RouterMaker) -> None:
    script = Script(words=("one ", "two "), failure=BROKEN, fails_after=2)
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", script), phone) as router:
            chunks = await collect(router, max_output_tokens=2)
        answer = chunks[-1].answer
        assert answer is not None
        assert (answer.text, answer.finish_reason) == ("one two ", FinishReason.LENGTH)

    run_in_virtual_time(main())
    assert phone.calls == []


def test_a_short_budget_leaves_time_for_the_device_to_continue(make_router: RouterMaker) -> None:
    stalled = Script(words=("one ", "two ", "three"), silent_after=2)
    cloud = ScriptedBackend("cloud", lambda number: stalled if number >= 60 else Script())
    phone = ScriptedBackend("phone", Script(words=("three",)))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            for _ in range(60):
                await router.generate("Hello", data_class="secret")
                await router.generate("Hello", data_class="public")
            chunks = await collect(router, latency_budget=0.4)
        assert "".join(chunk.text for chunk in chunks) == "one two three"

    run_in_virtual_time(main())


def test_a_backend_that_cancels_itself_has_failed_and_nobody_else_is_cancelled(make_router: RouterMaker) -> None:
    class Cancelling(ScriptedBackend):
        async def generate(self, call, context):  # type: ignore[no-untyped-def]
            async for event in super().generate(call, context):
                yield event
                raise asyncio.CancelledError

    async def main() -> None:
        async with make_router(Cancelling("cloud"), ScriptedBackend("phone")) as router:
            chunks = await collect(router)
            assert [chunk.seam.to_backend for chunk in chunks if chunk.seam] == ["phone"]
            answer = await router.generate("Hello", data_class="public")
            assert (answer.backend, answer.decision.attempts[0].failure) == ("phone", FailureKind.INTERNAL)

    run_in_virtual_time(main())


def test_a_backend_s_own_deadline_within_its_answer_is_not_the_request_s(make_router: RouterMaker) -> None:
    gave_up = AttemptError(FailureKind.TIMED_OUT, "it had given itself less time")
    cloud = ScriptedBackend("cloud", Script(("one ", "two ", "three"), failure=gave_up, fails_after=2))

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone", Script(("three",)))) as router:
            chunks = await collect(router)
        assert "".join(chunk.text for chunk in chunks) == "one two three"
        assert [chunk.seam.to_backend for chunk in chunks if chunk.seam] == ["phone"]

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("kind", "whole"), [(FailureKind.UNREACHABLE, "one two three"), (FailureKind.TIMED_OUT, "one two ")]
)
def test_what_breaks_while_its_reader_is_slow_is_continued_unless_its_own_time_was_over(
    make_router: RouterMaker, kind: FailureKind, whole: str
) -> None:
    """The reader's time is added to the request's, though not to that of the call which began with it."""
    broken = Script(("one ", "two ", "three"), failure=AttemptError(kind, "it broke"), fails_after=2)
    phone = ScriptedBackend("phone", Script(("three",)))
    text: list[str] = []

    async def read(router: AsyncRouter) -> None:
        async for chunk in router.stream("Hello", data_class="public", latency_budget=5.0):
            text.append(chunk.text)
            if chunk.text == "two ":
                await asyncio.sleep(6.0)

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", broken), phone) as router:
            if kind is FailureKind.UNREACHABLE:
                await read(router)
            else:
                with pytest.raises(DeadlineExceeded) as caught:
                    await read(router)
                assert caught.value.partial == whole
        assert "".join(text) == whole

    run_in_virtual_time(main())


@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_who_continues_has_the_request_s_time_and_the_reader_s_and_no_more(
    make_router: RouterMaker, pause: float
) -> None:
    cloud = ScriptedBackend("cloud", Script(("one ", "two "), failure=BROKEN, fails_after=1))
    phone = ScriptedBackend("phone", Script(silent_after=0))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10.0)
        async with make_router(cloud, phone) as router:
            started = loop.time()
            with pytest.raises(DeadlineExceeded):
                async for _ in router.stream("Hello", data_class="public", latency_budget=5.0):
                    await asyncio.sleep(pause)
            assert loop.time() - started == pytest.approx(5.0 + pause)
        assert phone.calls[-1].context.deadline.at == pytest.approx(started + 5.0 + pause)

    run_in_virtual_time(main())


@pytest.mark.parametrize("rest", [("two ", "three"), ("two ",)], ids=["tokens are left", "none is left"])
def test_who_continues_is_given_the_tokens_that_are_left(make_router: RouterMaker, rest: tuple[str, ...]) -> None:
    cloud = ScriptedBackend("cloud", Script(("one ", "two "), failure=BROKEN, fails_after=1))
    phone = ScriptedBackend("phone", Script(rest))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router, max_output_tokens=1 + len(rest))
        answer = chunks[-1].answer
        assert answer is not None
        assert answer.text == "one " + "".join(rest)

    run_in_virtual_time(main())
    content = phone.calls[0].content
    assert isinstance(content, GenerateInput)
    assert content.max_output_tokens == len(rest)
    assert [message.text for message in content.messages] == ["Hello", "one "]


def test_nothing_is_continued_once_all_that_was_asked_for_has_come(make_router: RouterMaker) -> None:
    """Though its finish was lost; one token less, and it is."""
    cloud = ScriptedBackend("cloud", Script(("one ", "two "), failure=BROKEN, fails_after=2))
    phone = ScriptedBackend("phone", Script(("three ",)))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router, max_output_tokens=3)
            assert "".join(chunk.text for chunk in chunks) == "one two three "

    run_in_virtual_time(main())


@pytest.mark.parametrize("others", [[], ["phone"]], ids=["alone", "two"])
def test_what_may_begin_anew_does_so_elsewhere_or_where_it_was(make_router: RouterMaker, others: list[str]) -> None:
    """The backend that broke is asked again only where nobody else is left, and only by the caller's leave."""
    broken = Script(("one ", "two "), failure=BROKEN, fails_after=1)
    cloud = ScriptedBackend("cloud", lambda number: Script(("un ", "deux")) if number == 1 else broken)
    backends = [ScriptedBackend(name, Script(("eins ", "zwei"))) for name in others]
    json: Any = {"response_format": {"type": "json_object"}}  # which nobody can continue

    async def main() -> None:
        async with make_router(cloud, *backends) as router:
            chunks = await collect(router, stream_failover="restart", **json)
            (seam,) = (chunk.seam for chunk in chunks if chunk.seam)
            assert seam.restarts
            assert seam.to_backend == [*others, "cloud"][0]
            assert chunks[-1].answer is not None
            assert chunks[-1].answer.text == ("eins zwei" if others else "un deux")
            while len(cloud.calls) < 2:
                await router.generate("Hello", data_class="public", backend="cloud")
            with pytest.raises(PartialAnswer) as caught:
                await collect(router, **json)
            assert caught.value.partial == "one "

    run_in_virtual_time(main())


@pytest.mark.parametrize(("pause", "asked"), [(2.0, 2), (60.0, 1)], ids=["within the budget", "past it"])
def test_who_is_alone_is_asked_again_once_the_pause_that_it_asks_for_is_over(
    make_router: RouterMaker, pause: float, asked: int
) -> None:
    full = AttemptError(FailureKind.OVERLOADED, "too much to do", retry_after=pause)
    cloud = ScriptedBackend(
        "cloud", lambda number: Script(("one ",), failure=full, fails_after=1) if number == 0 else Script(("all",))
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud) as router:
            begun = loop.time()
            if asked == 1:
                with pytest.raises(PartialAnswer):
                    await collect(router, stream_failover="restart")
                assert loop.time() - begun < 1.0
            else:
                texts = [chunk.text for chunk in await collect(router, stream_failover="restart")]
                assert "all" in texts
                assert loop.time() - begun >= pause

    run_in_virtual_time(main())
    assert len(cloud.calls) == asked
