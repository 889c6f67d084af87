"""A stream that a connection lost is resumed before anybody else is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from edgewise.backends import CallContext, Capabilities
from edgewise.core.answer import Delta, GenerateEvent
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.router import PartialAnswer
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, collect

WORDS = ("one ", "two ", "three ", "four")
CAN = Capabilities(frozenset(Task), continues=True, resumes=True, max_concurrency=8)


def losing(*after: int, can: Capabilities = CAN) -> ScriptedBackend:
    return ScriptedBackend("cloud", Script(WORDS, lost_after=after), capabilities=can)


@pytest.mark.parametrize("lost_after", [(1,), (2,), (3,), (4,), (1, 3)])
def test_a_lost_stream_goes_on_without_a_seam(make_router: RouterMaker, lost_after: tuple[int, ...]) -> None:
    cloud, phone = losing(*lost_after), ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router)
        assert [chunk.text for chunk in chunks] == [*WORDS, ""]
        assert not any(chunk.seam for chunk in chunks)
        answer = chunks[-1].answer
        assert answer is not None
        assert (answer.text, answer.backend) == ("".join(WORDS), "cloud")
        reasons = [attempt.reason for attempt in answer.decision.attempts]
        assert reasons == ["first choice"] + ["resume"] * len(lost_after)

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1, "content was sent again"
    assert [resumption.after for resumption in cloud.resumptions] == list(lost_after)
    assert len({resumption.context.stream for resumption in cloud.resumptions}) == 1
    assert not phone.calls


def test_a_stream_that_was_lost_while_its_reader_was_slow_is_resumed_within_the_time_that_he_took(
    make_router: RouterMaker,
) -> None:
    cloud = losing(2)

    async def main() -> None:
        async with make_router(cloud) as router:
            text = []
            async for chunk in router.stream("Hello", data_class="public", latency_budget=5.0):
                text.append(chunk.text)
                if len(text) == 1:
                    await asyncio.sleep(60.0)
            assert text == [*WORDS, ""]

    run_in_virtual_time(main())


def test_an_answer_that_is_waited_for_is_resumed_too(make_router: RouterMaker) -> None:
    cloud = losing(1, 3)

    async def main() -> None:
        async with make_router(cloud) as router:
            answer = await router.generate("Count!", data_class="public")
        assert answer.text == "".join(WORDS)
        assert [attempt.reason for attempt in answer.decision.attempts] == ["first choice", "resume", "resume"]

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1


def test_who_cannot_resume_is_continued_elsewhere(make_router: RouterMaker) -> None:
    class Forgetful(ScriptedBackend):
        def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            raise AttemptError(FailureKind.CONFLICT, "not here any more")

    cloud = Forgetful("cloud", Script(WORDS, lost_after=(2,)), capabilities=CAN)
    phone = ScriptedBackend("phone", Script(WORDS[2:]))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            chunks = await collect(router)
        assert "".join(chunk.text for chunk in chunks) == "".join(WORDS)
        (seam,) = [chunk.seam for chunk in chunks if chunk.seam]
        assert (seam.from_backend, seam.to_backend) == ("cloud", "phone")
        answer = chunks[-1].answer
        assert answer is not None
        assert [attempt.backend for attempt in answer.decision.attempts] == ["cloud", "cloud", "phone"]

    run_in_virtual_time(main())


def test_resuming_is_paid_for_like_a_retry(make_router: RouterMaker) -> None:
    """A connection that breaks at every word is given up when the budget is spent."""
    words = tuple(f"{number} " for number in range(20))
    cloud = ScriptedBackend("cloud", Script(words, lost_after=tuple(range(1, 20))), capabilities=CAN)

    async def main() -> None:
        async with make_router(cloud) as router:
            with pytest.raises(PartialAnswer) as caught:
                await collect(router)
        assert "".join(words).startswith(caught.value.partial)

    run_in_virtual_time(main())
    assert 1 <= len(cloud.resumptions) <= 3


def test_newer_walls_forbid_it(make_router: RouterMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The permit is judged again for a stream that is resumed: what tightened meanwhile stops it."""
    cloud = losing(2)

    async def main() -> None:
        async with make_router(cloud) as router:
            stream = router.stream("Count!", data_class="public")
            await anext(stream)
            tightened = make_router(cloud, policy="  rules: []\n")._decider.policy
            monkeypatch.setattr(tightened, "permits", lambda permit, labels: Refused())
            router._decider.policy = tightened
            with pytest.raises(PartialAnswer):
                [chunk async for chunk in stream]

    class Refused:
        sentence = "not here"

    run_in_virtual_time(main())
    assert not cloud.resumptions


def test_leaving_a_stream_while_it_is_resumed_leaves_nothing_behind(make_router: RouterMaker) -> None:
    class Slow(ScriptedBackend):
        closed = False

        async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            try:
                await asyncio.sleep(60)
                yield Delta("late")
            finally:
                Slow.closed = True

    cloud = Slow("cloud", Script(WORDS, lost_after=(2,)), capabilities=CAN)

    async def main() -> None:
        async with make_router(cloud) as router:
            reading = asyncio.create_task(collect(router))
            await asyncio.sleep(5)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await asyncio.sleep(0.1)
            assert Slow.closed
            assert router._started().fleet["cloud"].slots.running == 0

    run_in_virtual_time(main())


def test_an_answer_that_goes_on_is_not_given_up(make_router: RouterMaker) -> None:
    """Others wait for it to be taken up, not for its end."""
    words = tuple(f"{number} " for number in range(8))
    cloud = ScriptedBackend("cloud", Script(words, every=0.45, lost_after=(1,)), capabilities=CAN)
    phone = ScriptedBackend("phone")

    async def main() -> None:
        async with make_router(
            cloud, phone, policy="  rules: [{name: one at a time, set: {hedge: false}}]\n"
        ) as router:
            answer = await router.generate("Count!", data_class="public")
        assert (answer.text, answer.backend) == ("".join(words), "cloud")

    run_in_virtual_time(main())
    assert not phone.calls


def test_one_that_is_lost_in_silence_is_given_up_in_time(make_router: RouterMaker) -> None:
    class Silent(ScriptedBackend):
        async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            await asyncio.sleep(60)
            yield Delta("late")

    cloud = Silent("cloud", Script(WORDS, lost_after=(1,)), capabilities=CAN)

    async def main() -> None:
        async with make_router(cloud, ScriptedBackend("phone")) as router:
            answer = await router.generate("Count!", data_class="public")
            assert answer.backend == "phone"
            assert answer.decision.ended is not None
            assert answer.decision.ended < 2.0

    run_in_virtual_time(main())


def test_a_resumption_that_was_beaten_is_told_of_with_the_answer(make_router: RouterMaker) -> None:
    class Silent(ScriptedBackend):
        async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
            await asyncio.sleep(60)
            yield Delta("late")

    cloud = Silent("cloud", Script(WORDS, lost_after=(1,)), capabilities=CAN)
    phone = ScriptedBackend("phone", Script(first_after=0.6))

    async def main() -> None:
        async with make_router(cloud, phone) as router:
            answer = await router.generate("Count!", data_class="public", latency_budget=9.0)
            assert answer.backend == "phone"
            assert [attempt.ended is not None for attempt in answer.decision.attempts] == [True] * 3
            assert answer.decision.attempts[-1].failure is FailureKind.PREEMPTED

    run_in_virtual_time(main())
