"""What runs where a newer version of the policy forbids it is stopped at once, and the request goes on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import Delta, GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.core.errors import BackendError, PartialAnswer
from edgewise.core.failure import FailureKind
from edgewise.router import AsyncRouter
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from ..cloud_and_gateway import TEXT, strict

ONE_AT_A_TIME = TEXT.replace("20s", "60s") + "  rules: [{name: one at a time, set: {hedge: false}}]\n"
STRICT = strict(ONE_AT_A_TIME)
DEVICE_ALONE = ONE_AT_A_TIME.replace("process_in: [EU], operators: [EU, US]", "process_in: []")
SILENT = Script(silent_after=0)
TIGHTENED_AT = 0.02

Test = Callable[[AsyncRouter], Coroutine[None, None, None]]


class Deaf(ScriptedBackend):
    """Sends one word, and does not stop when it is cancelled: for a second it goes on."""

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        self._receive(call, context)
        yield Delta("one ")
        until = asyncio.get_running_loop().time() + 1.0
        while (now := asyncio.get_running_loop().time()) < until:
            try:
                await asyncio.sleep(until - now)
            except asyncio.CancelledError:
                continue
        yield Delta("two ")


def run(folder: Path, test: Test, *backends: ScriptedBackend, newer: str = STRICT) -> None:
    """Run a test over a router whose file is replaced by a newer one a moment after its start."""
    file = folder / "edgewise.yaml"
    file.write_text(ONE_AT_A_TIME, encoding="utf-8")

    async def main() -> None:
        async with AsyncRouter.from_yaml(file, backends={each.name: each for each in backends}) as router:
            tested = asyncio.create_task(test(router))
            await asyncio.sleep(TIGHTENED_AT)
            file.write_text(newer, encoding="utf-8")
            await router.reload()
            await tested

    run_in_virtual_time(main())


@pytest.mark.parametrize("cloud", [ScriptedBackend("cloud", SILENT), Deaf("cloud")], ids=["silent", "deaf"])
def test_an_answer_is_asked_for_elsewhere_at_once(tmp_path: Path, cloud: ScriptedBackend) -> None:
    async def test(router: AsyncRouter) -> None:
        answer = await router.generate("a text")
        stopped, answered = answer.decision.attempts
        assert (stopped.backend, stopped.failure) == ("cloud", FailureKind.NOT_PERMITTED)
        assert "permits operators [EU]; this backend has [US]" in stopped.sentence
        assert stopped.ended == answered.started == pytest.approx(TIGHTENED_AT)
        assert (answer.backend, answer.text) == ("gateway", "a scripted answer")
        assert (answered.backend, answered.reason) == ("gateway", "cloud failed: not_permitted")

    run(tmp_path, test, cloud, ScriptedBackend("gateway"))


def test_the_backend_is_told_to_stop(tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud", SILENT)

    async def test(router: AsyncRouter) -> None:
        await router.embed(["a text"])
        await asyncio.sleep(0)
        assert cloud.calls[0].outcome == ["cancelled"]

    run(tmp_path, test, cloud, ScriptedBackend("gateway"))


@pytest.mark.parametrize(
    ("cloud", "received"),
    [
        (ScriptedBackend("cloud", Script(words=("one ", "two "), silent_after=1)), "one "),
        (Deaf("cloud"), "one "),
        (ScriptedBackend("cloud", SILENT), ""),
    ],
    ids=["within", "deaf", "before"],
)
def test_a_stream_goes_on_elsewhere_with_what_had_come(tmp_path: Path, cloud: ScriptedBackend, received: str) -> None:
    gateway = ScriptedBackend("gateway", Script(words=("three ", "four")))

    async def test(router: AsyncRouter) -> None:
        chunks = [chunk async for chunk in router.stream("a text")]
        assert "".join(chunk.text for chunk in chunks) == f"{received}three four"
        answer = chunks[-1].answer
        assert answer is not None
        assert [each.failure for each in answer.decision.attempts] == [FailureKind.NOT_PERMITTED, None]
        assert answer.decision.attempts[1].started == pytest.approx(TIGHTENED_AT, abs=0.021)
        content = gateway.calls[0].content
        assert isinstance(content, GenerateInput)
        assert content.messages[-1].text == (received or "a text")

    run(tmp_path, test, cloud, gateway)


def test_what_a_slow_reader_has_not_read_yet_came_before_and_is_kept(tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud", Script(words=("one ", "two ", "three "), silent_after=2))

    async def test(router: AsyncRouter) -> None:
        texts: list[str] = []
        async with aclosing(router.stream("a text")) as chunks:
            async for chunk in chunks:
                texts.append(chunk.text)
                await asyncio.sleep(1.0)
        assert "".join(texts) == "one two four"
        assert cloud.calls[0].outcome == ["cancelled"]

    run(tmp_path, test, cloud, ScriptedBackend("gateway", Script(words=("four",))))


def test_nothing_is_taken_any_more_from_a_backend_that_does_not_stop(tmp_path: Path) -> None:
    async def test(router: AsyncRouter) -> None:
        texts: list[str] = []
        async with aclosing(router.stream("a text")) as chunks:
            async for chunk in chunks:
                texts.append(chunk.text)
                await asyncio.sleep(1.5)
        assert "".join(texts) == "one three"

    run(tmp_path, test, Deaf("cloud"), ScriptedBackend("gateway", Script(words=("three",))))


def test_where_nothing_else_is_permitted_the_request_ends(tmp_path: Path) -> None:
    async def test(router: AsyncRouter) -> None:
        with pytest.raises(BackendError, match="no longer permitted"):
            await router.generate("a text")

    gateway = ScriptedBackend("gateway")
    run(tmp_path, test, ScriptedBackend("cloud", SILENT), gateway, newer=DEVICE_ALONE)
    assert gateway.calls == []


def test_a_stream_that_may_go_on_nowhere_hands_over_what_had_come(tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud", Script(words=("one ", "two "), silent_after=1))

    async def test(router: AsyncRouter) -> None:
        with pytest.raises(PartialAnswer, match="no longer permitted") as caught:
            async for _ in router.stream("a text"):
                pass
        assert caught.value.partial == "one "

    run(tmp_path, test, cloud, ScriptedBackend("gateway"), newer=DEVICE_ALONE)


def test_what_must_not_run_twice_is_not_asked_for_again(tmp_path: Path) -> None:
    gateway = ScriptedBackend("gateway")

    async def test(router: AsyncRouter) -> None:
        with pytest.raises(BackendError, match="no longer permitted"):
            await router.generate("a text", idempotent=False)

    run(tmp_path, test, ScriptedBackend("cloud", SILENT), gateway)
    assert gateway.calls == []


def test_what_only_waited_for_its_turn_may_be_asked_for_elsewhere(tmp_path: Path) -> None:
    one_at_a_time = replace(ScriptedBackend("any").capabilities, max_concurrency=1)
    cloud = ScriptedBackend("cloud", SILENT, capabilities=one_at_a_time)

    async def test(router: AsyncRouter) -> None:
        first = asyncio.create_task(router.generate("one", idempotent=False))
        second = asyncio.create_task(router.generate("two", idempotent=False))
        assert (await second).backend == "gateway"
        with pytest.raises(BackendError):
            await first
        assert len(cloud.calls) == 1

    run(tmp_path, test, cloud, ScriptedBackend("gateway"))


def test_what_the_newer_walls_still_permit_runs_on(tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=1.0))

    async def test(router: AsyncRouter) -> None:
        answer = await router.generate("a text")
        assert (answer.backend, len(answer.decision.attempts)) == ("cloud", 1)

    run(tmp_path, test, cloud, ScriptedBackend("gateway"), newer=ONE_AT_A_TIME.replace("[EU, US]", "[US]"))


class Lost(ScriptedBackend):
    """Says a word and loses the connection; the rest, asked for again, never comes."""

    def __init__(self) -> None:
        resumes = replace(ScriptedBackend("any").capabilities, resumes=True)
        super().__init__(
            "cloud", Script(words=("one ", "two "), first_after=0.001, lost_after=(1,)), capabilities=resumes
        )

    async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        await asyncio.sleep(30.0)
        yield Delta("two ")


def test_a_lost_answer_is_not_resumed_where_it_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.router.execution.retry.backoff", lambda *arguments: 0.001)
    gateway = ScriptedBackend("gateway", Script(words=("three",)))

    async def test(router: AsyncRouter) -> None:
        answer = await router.generate("a text")
        assert (answer.text, answer.backend) == ("three", "gateway")
        lost, resumed, answered = answer.decision.attempts
        assert (lost.failure, resumed.failure) == (FailureKind.UNREACHABLE, FailureKind.NOT_PERMITTED)
        assert resumed.ended == answered.started == pytest.approx(TIGHTENED_AT)

    run(tmp_path, test, Lost(), gateway)


def test_a_lost_stream_is_not_resumed_where_it_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.router.execution.retry.backoff", lambda *arguments: 0.001)

    async def test(router: AsyncRouter) -> None:
        chunks = [chunk async for chunk in router.stream("a text")]
        assert "".join(chunk.text for chunk in chunks) == "one three"
        answer = chunks[-1].answer
        assert answer is not None
        lost, resumed, answered = answer.decision.attempts
        assert (lost.failure, resumed.failure) == (FailureKind.UNREACHABLE, FailureKind.NOT_PERMITTED)
        assert resumed.ended == answered.started == pytest.approx(TIGHTENED_AT)

    run(tmp_path, test, Lost(), ScriptedBackend("gateway", Script(words=("three",))))
