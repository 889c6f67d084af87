"""What a router relies on where the service is slow, full, broken, unknown or gone."""

from __future__ import annotations

import asyncio
import unittest
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from ...core.answer import Delta
from ...core.content import GenerateInput, InferInput, Message
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ..backend import Backend
from .suite import MARKER, Suite, failure, on_loop, outcome, perform

_DEADLINE = 0.4
_LATE = 2.0
"""Seconds after a deadline by which its call has ended, on a busy machine."""

_SECONDS_TO_COME_BACK = 30.0


class RemoteTests(Suite):
    """For services elsewhere. What is not overridden here is not tested, and said to be skipped."""

    breaking: ClassVar[str | None] = None
    """What a prompt says so that the service fails after some text."""

    def lasting(self) -> GenerateInput:
        """A call whose answer takes seconds."""
        return self.call(max_output_tokens=512)

    @classmethod
    def stranger(cls) -> Backend:
        """A new backend like the tests' own, for a model that the service does not have."""
        raise unittest.SkipTest("the test does not say how to name a model that is not there")

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        """While this is open, the service has no room for a generation."""
        raise unittest.SkipTest("this service never says that it has no room")

    @classmethod
    async def restart(cls) -> None:
        """Kill the service, and start it again where it was."""
        raise unittest.SkipTest("the test does not say how the service is restarted")

    @on_loop
    async def test_a_stream_ends_by_its_deadline(self) -> None:
        self._require(Task.GENERATE)
        await self.ask(Task.GENERATE)
        clock = asyncio.get_running_loop().time
        began = clock()
        late = await failure(
            perform(self.backend, self.lasting(), self.context(_DEADLINE)), "a call beyond its deadline"
        )
        assert clock() - began < _DEADLINE + _LATE, "the call went on after its deadline"
        assert late.kind is FailureKind.TIMED_OUT
        await self.becomes_idle()
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_a_failure_in_mid_stream_is_told_and_the_text_before_it_is_given(self) -> None:
        self._require(Task.GENERATE)
        self.require_honoured(self.streams and self.breaking is not None, "a prompt to break at")
        call = GenerateInput((Message.user(f"{self.breaking} {MARKER}"),), max_output_tokens=12)
        seen: list[object] = []

        async def read() -> None:
            async for event in self.backend.generate(call, self.context()):
                seen.append(event)  # noqa: PERF401  # what came before the failure counts

        broken = await failure(read(), "a broken stream")
        assert seen, "the text before the failure was lost"
        assert all(isinstance(event, Delta) for event in seen), "a broken stream had a Finish"
        assert broken.kind in {FailureKind.INTERNAL, FailureKind.UNREACHABLE, FailureKind.TRUNCATED}
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_a_model_that_is_not_there_is_named(self) -> None:
        stranger = self.stranger()
        try:
            for task in sorted(self.backend.capabilities.tasks - {Task.INFER}):
                refused = await failure(self.ask(task, backend=stranger), "a call to an unknown model")
                assert refused.kind is FailureKind.MODEL_UNAVAILABLE
                assert "`model`" in refused.sentence
            if self.tensors is not None and Task.INFER in self.backend.capabilities.tasks:
                call = InferInput("no-such-model", self.tensors.inputs)
                assert (
                    await failure(stranger.infer(call, self.context()), "a call to an unknown model")
                ).kind is FailureKind.UNKNOWN_MODEL
        finally:
            await stranger.stop()

    @on_loop
    async def test_a_service_without_room_is_overloaded_and_has_room_later(self) -> None:
        self._require(Task.GENERATE)
        async with self.filled():
            refused = await failure(self.ask(Task.GENERATE), "a call to a service without room")
            assert refused.kind is FailureKind.OVERLOADED
            assert refused.disposition.retry_here
        await self._comes_back()

    @on_loop
    async def test_many_calls_at_once_are_answered_or_refused_for_want_of_room(self) -> None:
        task = next(iter(sorted(self.backend.capabilities.tasks)))
        ended = await asyncio.gather(*(outcome(self.ask(task)) for _ in range(4 * self.concurrent)))
        assert set(ended) <= {None, FailureKind.OVERLOADED}
        assert None in ended
        await self.ask(task)

    @on_loop
    async def test_a_restart_in_mid_stream_breaks_that_stream_and_no_later_one(self) -> None:
        self._require(Task.GENERATE)
        self.require_honoured(self.streams, "a stream")
        stream = self.backend.generate(self.lasting(), self.context())
        assert isinstance(await anext(stream), Delta)
        await self.restart()

        async def rest() -> None:
            async for _ in stream:
                pass

        broken = await failure(rest(), "a stream whose server was restarted")
        assert broken.kind in {FailureKind.UNREACHABLE, FailureKind.TRUNCATED, FailureKind.INTERNAL}
        await self._comes_back()

    def _require(self, task: Task) -> None:
        if task not in self.backend.capabilities.tasks:
            raise unittest.SkipTest(f"the backend cannot {task}")

    async def _comes_back(self) -> None:
        """The same backend answers again, and until then fails as a service does that is not there yet."""
        clock = asyncio.get_running_loop().time
        gives_up = clock() + _SECONDS_TO_COME_BACK
        while True:
            try:
                return await self.ask(Task.GENERATE, context=self.context(5.0))
            except AttemptError as error:
                waiting = {FailureKind.UNREACHABLE, FailureKind.OVERLOADED, FailureKind.MODEL_UNAVAILABLE}
                if error.kind not in waiting or clock() > gives_up:
                    raise AssertionError(f"the service is back, and the call failed with {error.kind}") from None
            await asyncio.sleep(0.05)
