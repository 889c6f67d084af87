"""The contract's tests fail for backends that break it, each for what it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest

from edgewise.backends import Backend, CallContext, Capabilities
from edgewise.backends.contract import CancellationTests, EmbeddingTests, GenerationTests, LifetimeTests
from edgewise.core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent
from edgewise.core.content import EmbedInput, GenerateInput
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.testing import Script, ScriptedBackend

WORDS = tuple(f"{number} " for number in range(1, 31))


class Sound(ScriptedBackend):
    """Keeps the contract; the others break it in one way each."""

    def __init__(self) -> None:
        can = Capabilities(frozenset({Task.GENERATE, Task.EMBED}), max_concurrency=2)
        super().__init__("sound", Script(WORDS, first_after=0.0, every=0.0), capabilities=can)

    def _text(self, call: GenerateInput) -> str:
        return " ".join(message.text for message in call.messages)


class GoesOnAfterItsFinish(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        async for event in super().generate(call, context):
            yield event
        yield Delta("more")


class ForgetsItsFinish(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        async for event in super().generate(call, context):
            if isinstance(event, Delta):
                yield event


class CutsCharacters(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        yield Delta("\ud83d")
        yield Finish(FinishReason.STOP)


class RaisesWhatItLikes(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        self._text(call).encode()
        async for event in super().generate(call, context):
            yield event


class QuotesContent(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        if call.response_format is not None:
            raise AttemptError(FailureKind.INVALID_REQUEST, f"bad format for {self._text(call)}")
        async for event in super().generate(call, context):
            yield event


class LogsContent(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        logging.getLogger("engine").debug("asked %s", self._text(call))
        async for event in super().generate(call, context):
            yield event


class LosesPlaces(Sound):
    places = asyncio.Semaphore(2)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        await self.places.acquire()
        async for event in super().generate(call, context):
            yield event
        self.places.release()


class SwallowsCancellation(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        try:
            return await super().embed(call, context)
        except asyncio.CancelledError:
            return await super().embed(call, context)


class WorksTooLate(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        return await super().embed(call, self_made_context())


class MixesTexts(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        return await super().embed(EmbedInput(tuple(sorted(call.texts))), context)


class AnswersWhenStopped(Sound):
    async def stop(self) -> None:
        """Not at all."""


class AnswersAnew(Sound):
    answers = 0

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        AnswersAnew.answers += 1
        yield Delta(f"answer {self.answers}")
        yield Finish(FinishReason.STOP)


class All(LifetimeTests, GenerationTests, CancellationTests, EmbeddingTests):
    honours_length = honours_stop = False
    patience = 2.0


def self_made_context() -> CallContext:
    return All().context()


BROKEN: list[tuple[type[Sound], str]] = [
    (GoesOnAfterItsFinish, "test_a_stream_is_deltas_and_then_one_finish"),
    (ForgetsItsFinish, "test_a_stream_is_deltas_and_then_one_finish"),
    (CutsCharacters, "test_the_text_of_deltas_is_valid_unicode"),
    (RaisesWhatItLikes, "test_odd_calls_fail_as_attempts_and_leave_it_whole"),
    (QuotesContent, "test_odd_calls_fail_as_attempts_and_leave_it_whole"),
    (LogsContent, "test_a_stream_is_deltas_and_then_one_finish"),
    (LosesPlaces, "test_closing_a_stream_stops_the_work_and_frees_its_place"),
    (SwallowsCancellation, "test_cancelling_a_call_at_any_moment_frees_its_place"),
    (WorksTooLate, "test_a_call_whose_deadline_has_passed_has_timed_out"),
    (MixesTexts, "test_there_is_one_vector_a_text_in_the_order_given"),
    (AnswersWhenStopped, "test_stopping_ends_its_calls_and_refuses_more_however_often"),
    (AnswersAnew, "test_a_seed_gives_the_same_answer_again"),
]


def _run(backend: type[Sound], test: str) -> None:
    class Suite(All):
        @classmethod
        def make(cls) -> Backend:
            return backend()

    Suite.setup_class()
    try:
        getattr(Suite(), test)()
    finally:
        Suite.teardown_class()


@pytest.mark.parametrize(("broken", "test"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_what_a_backend_breaks_is_found(broken: type[Sound], test: str) -> None:
    _run(Sound, test)
    with pytest.raises((AssertionError, UnicodeEncodeError)):
        _run(broken, test)


def test_a_suite_that_does_not_say_how_its_backend_is_made_is_told() -> None:
    with pytest.raises(NotImplementedError, match=r"All does not say how its backend is made"):
        All.setup_class()
