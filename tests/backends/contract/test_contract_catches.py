"""The contract's tests fail for backends that break it: for each promise one that breaks nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy
import pytest

from edgewise.backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from edgewise.backends.backend import ModelSignature
from edgewise.backends.contract import (
    CancellationTests,
    ClassificationTests,
    CountingTests,
    EmbeddingTests,
    GenerationTests,
    InferenceTests,
    LifetimeTests,
    ResumptionTests,
)
from edgewise.backends.tensors import to_tensor
from edgewise.core.answer import (
    Classification,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    GenerateEvent,
    Inference,
    Usage,
)
from edgewise.core.content import (
    ClassifyInput,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Message,
    Tensor,
)
from edgewise.core.errors import InvalidRequest
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task

from ._sound import Sound

Stream = AsyncGenerator[GenerateEvent, None]
TENSORS = InferInput("double", {"x": to_tensor(numpy.ones((2, 3), dtype=numpy.float32))})


class All(
    LifetimeTests,
    GenerationTests,
    CancellationTests,
    ResumptionTests,
    EmbeddingTests,
    ClassificationTests,
    InferenceTests,
    CountingTests,
):
    tensors = TENSORS

    @classmethod
    def make(cls) -> Backend:
        return Sound()

    @classmethod
    async def lose(cls, backend: Backend) -> None:
        assert isinstance(backend, Sound)
        backend.connections += 1

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        assert isinstance(backend, Sound)
        while backend.working:  # noqa: ASYNC110  # the engine's end is no event here
            await asyncio.sleep(0)


# Lifetime


class CanDoNothing(Sound):
    capabilities = Capabilities(frozenset())


class ShowsContentInItsName(Sound):
    last = ""

    def text(self, message: Message) -> str:
        self.last = super().text(message)
        return self.last

    def __repr__(self) -> str:
        return f"Sound({self.last})"


class IsNeverReady(Sound):
    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.LOADING)


class AsksForItsHealth(Sound):
    def health(self) -> BackendHealth:
        time.sleep(0.015)
        return super().health()


class DoesWhatItDoesNotSay(Sound):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, tasks=frozenset(Task) - {Task.EMBED})


class WorksTooLate(Sound):
    def require_time(self, context: CallContext) -> None:
        """At any time."""


class CallsLatenessAMistake(Sound):
    def require_time(self, context: CallContext) -> None:
        try:
            super().require_time(context)
        except AttemptError:
            raise AttemptError(FailureKind.INVALID_REQUEST, "the deadline had passed") from None


class RefusesThoseWhoWait(Sound):
    @asynccontextmanager
    async def place(self, context: CallContext) -> AsyncIterator[None]:
        if self.places.locked():
            raise AttemptError(FailureKind.OVERLOADED, "it is full")
        async with super().place(context):
            yield


class RefusesBeforeItIsReady(Sound):
    async def ready(self, context: CallContext) -> None:
        if self.state is HealthState.LOADING:
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, "it is not ready")
        await super().ready(context)


class SaysThatItIsReadyWhenStopped(Sound):
    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.READY)


class AnswersWhenStopped(Sound):
    def require_running(self) -> None:
        """Always."""


class StopsOnce(Sound):
    async def stop(self) -> None:
        if self.state is HealthState.DOWN:
            raise RuntimeError("it is stopped")
        await super().stop()


class StopsOnlyWhatWasStarted(Sound):
    async def stop(self) -> None:
        if self.state is HealthState.LOADING:
            raise RuntimeError("it was not started")
        await super().stop()


class HangsWhenStopped(Sound):
    def require_running(self) -> None:
        if self.state is HealthState.DOWN:
            raise _Never

    @asynccontextmanager
    async def place(self, context: CallContext) -> AsyncIterator[None]:
        try:
            async with super().place(context):
                yield
        except _Never:
            await asyncio.Event().wait()


class _Never(Exception):
    pass


class SwallowsCancellation(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        try:
            return await super().embed(call, context)
        except asyncio.CancelledError:
            return await super().embed(call, context)


class TurnsCancellationIntoFailure(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        try:
            return await super().embed(call, context)
        except asyncio.CancelledError:
            raise AttemptError(FailureKind.PREEMPTED, "it was cancelled") from None


class LosesAPlaceToTheCancelled(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        await self.ready(context)
        await self.lent.acquire()
        answer = await super().embed(call, context)
        self.lent.release()
        return answer

    def __init__(self) -> None:
        super().__init__()
        self.lent = asyncio.Semaphore(2)


# Whatever it does


class RaisesWhatItLikes(Sound):
    def text(self, message: Message) -> str:
        message.text.encode()
        return message.text


class QuotesContent(Sound):
    def in_form(self, call: GenerateInput) -> list[str]:
        try:
            return super().in_form(call)
        except AttemptError:
            asked = [message.text for message in call.messages]
            raise AttemptError(FailureKind.INVALID_REQUEST, f"bad format for {asked}") from None


class QuotesContentInACause(Sound):
    def in_form(self, call: GenerateInput) -> list[str]:
        try:
            return super().in_form(call)
        except AttemptError as error:
            raise error from ValueError([message.text for message in call.messages])


class LogsContent(Sound):
    def text(self, message: Message) -> str:
        logging.getLogger("engine").debug("asked %s", message.text)
        return super().text(message)


class SaysNothingOfItsFailures(Sound):
    def in_form(self, call: GenerateInput) -> list[str]:
        try:
            return super().in_form(call)
        except AttemptError as error:
            raise AttemptError(error.kind, "") from None


class BreaksForGood(Sound):
    def text(self, message: Message) -> str:
        try:
            return super().text(message)
        except AttemptError:
            self.state = HealthState.DOWN
            raise


# Generation


class GoesOnAfterItsFinish(Sound):
    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        yield from super().events(call)
        yield Delta("more")


class FinishesTwice(Sound):
    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        yield from super().events(call)
        yield Finish(FinishReason.STOP)


class ForgetsItsFinish(Sound):
    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        return (event for event in super().events(call) if isinstance(event, Delta))


class SaysNothing(Sound):
    def words(self, call: GenerateInput) -> list[str]:
        return []


class CutsCharacters(Sound):
    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        yield Delta("\ud83d")
        yield from super().events(call)


class ShowsMoreThanItCounts(Sound):
    def finish(self, reason: FinishReason, usage: Usage) -> Finish:
        return super().finish(reason, replace(usage, output_tokens=max(1, usage.output_tokens - 1)))


class WritesMoreThanAskedFor(Sound):
    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        return super().events(replace(call, max_output_tokens=call.max_output_tokens + 3))


class CallsEveryEndAStop(Sound):
    def finish(self, reason: FinishReason, usage: Usage) -> Finish:
        return super().finish(FinishReason.STOP, usage)


class DrawsLotsWhenGreedy(Sound):
    def cause(self, asked: Sequence[Message], call: GenerateInput) -> str:
        return super().cause(asked, replace(call, temperature=1.0))


class ForgetsTheSeed(Sound):
    answers = 0

    def cause(self, asked: Sequence[Message], call: GenerateInput) -> str:
        self.answers += 1
        return super().cause(asked, call if call.temperature == 0 else replace(call, seed=self.answers))


class IgnoresStopSequences(Sound):
    def before_stop(self, text: str, stop: Sequence[str]) -> str:
        return text


class SaysTheStopSequence(Sound):
    def before_stop(self, text: str, stop: Sequence[str]) -> str:
        cut = super().before_stop(text, stop)
        return cut + next((each for each in stop if text[len(cut) :].startswith(each)), "")


class BeginsAnewInsteadOfContinuing(Sound):
    def words(self, call: GenerateInput) -> list[str]:
        return super().words(replace(call, messages=call.messages[:-1]) if call.continues else call)


class ContinuesAsIfItWereATurn(Sound):
    def words(self, call: GenerateInput) -> list[str]:
        return super().words(replace(call, messages=(*call.messages, Message.user(""))) if call.continues else call)


class KeepsToNoForm(Sound):
    def in_form(self, call: GenerateInput) -> list[str]:
        super().in_form(call)
        return ["yes"]


class KeepsToAnotherForm(Sound):
    def in_form(self, call: GenerateInput) -> list[str]:
        super().in_form(call)
        return ["{}"]


class ReportsNoLogprobs(Sound):
    def logprobs(self, text: str, call: GenerateInput) -> tuple[Any, ...]:
        return ()


class ReportsProbabilities(Sound):
    def logprobs(self, text: str, call: GenerateInput) -> tuple[Any, ...]:
        return tuple(replace(entry, logprob=0.6) for entry in super().logprobs(text, call))


class ReportsTheWorstFirst(Sound):
    def logprobs(self, text: str, call: GenerateInput) -> tuple[Any, ...]:
        return tuple(replace(entry, top=entry.top[::-1]) for entry in super().logprobs(text, call))


class ReportsMoreThanAskedFor(Sound):
    def logprobs(self, text: str, call: GenerateInput) -> tuple[Any, ...]:
        return tuple(replace(entry, top=entry.top * 3) for entry in super().logprobs(text, call))


class ReportsOtherTokens(Sound):
    def logprobs(self, text: str, call: GenerateInput) -> tuple[Any, ...]:
        return tuple(replace(entry, token=entry.token.strip()) for entry in super().logprobs(text, call))


class CutsTheContext(Sound):
    def length(self, messages: Sequence[Message]) -> int:
        return min(super().length(messages), 150)


class CallsALongPromptAMistake(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> Stream:
        if self.length(call.messages) >= 200:
            raise AttemptError(FailureKind.INVALID_REQUEST, "the prompt is too long")
        async for event in super().generate(call, context):
            yield event


# Cancellation


class GoesOnWorking(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> Stream:
        work = object()
        self.working.add(work)
        async for event in super().generate(call, context):
            yield event
        self.working.discard(work)


class LosesPlaces(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> Stream:
        await self.ready(context)
        await self.lent.acquire()
        async for event in super().generate(call, context):
            yield event
        self.lent.release()

    def __init__(self) -> None:
        super().__init__()
        self.lent = asyncio.Semaphore(2)


class GoesOnWhenItsReaderIsCancelled(Sound):
    async def generate(self, call: GenerateInput, context: CallContext) -> Stream:
        async with self.place(context):
            for event in self.events(call):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
                yield event


class ForgetsThatSomebodyLeftTheQueue(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.free = 2
        self.queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self, context: CallContext) -> AsyncIterator[None]:
        await self.ready(context)
        if self.free:
            self.free -= 1
        else:
            self.queue.append(asyncio.get_running_loop().create_future())
            await self.queue[-1]
        try:
            yield
        finally:
            if not self.queue:
                self.free += 1
            elif not (next_ := self.queue.popleft()).done():
                next_.set_result(None)


class WorksOnceItIsCalled(Sound):
    def generate(self, call: GenerateInput, context: CallContext) -> Stream:
        self.working.add("unread")
        return self._counted(super().generate(call, context))

    async def _counted(self, stream: Stream) -> Stream:
        self.working.discard("unread")
        async for event in stream:
            yield event


# Resumption


class ResumesFromTheBeginning(Sound):
    async def resume(self, after: int, context: CallContext) -> Stream:
        async for event in super().resume(0, context):
            yield event


class SkipsWhenItResumes(Sound):
    async def resume(self, after: int, context: CallContext) -> Stream:
        async for event in super().resume(after + 1, context):
            yield event


class ResumesWithoutAnEnd(Sound):
    async def resume(self, after: int, context: CallContext) -> Stream:
        async for event in super().resume(after, context):
            if isinstance(event, Delta):
                yield event


class ResumesWhatNobodyBegan(Sound):
    async def resume(self, after: int, context: CallContext) -> Stream:
        self.streams.setdefault(context.stream, [self.finish(FinishReason.STOP, Usage())])
        async for event in super().resume(after - 1, context):
            yield event


class ResumesTooLate(Sound):
    async def resume(self, after: int, context: CallContext) -> Stream:
        self.streams.setdefault(context.stream, [Delta("late"), self.finish(FinishReason.STOP, Usage())])
        for event in self.streams[context.stream][after:]:
            yield event


# Arrays


class MixesTexts(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        return await super().embed(EmbedInput(tuple(sorted(call.texts))), context)


class EmbedsInOtherNumbers(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        async with self.place(context):
            return Embeddings(to_tensor(self.rows(call.texts).astype("float64")))


class EmbedsAllInOne(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        async with self.place(context):
            return Embeddings(to_tensor(self.rows(call.texts).sum(axis=0, keepdims=True)))


class EmbedsInBytesOfAnotherShape(Sound):
    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        whole = await super().embed(call, context)
        return Embeddings(Tensor("float32", whole.vectors.shape, whole.vectors.data[4:]))


class EmbedsInNoNumbers(Sound):
    def rows(self, texts: Sequence[str]) -> Any:
        return super().rows(texts) * float("nan")


class MixesTextsToClassify(Sound):
    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        return await super().classify(ClassifyInput(tuple(sorted(call.texts))), context)


class NamesALabelTwice(Sound):
    labels = ("long", "long")


class NamesNoLabels(Sound):
    labels = ()


class NamesTooManyLabels(Sound):
    labels = ("long", "short", "neither")


class GivesBytesOfAnotherShape(Sound):
    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        whole = await super().infer(call, context)
        return Inference({name: Tensor(each.dtype, (9, 9), each.data) for name, each in whole.outputs.items()})


class GivesNothing(Sound):
    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        await super().infer(call, context)
        return Inference({})


class FailsOnOddTensors(Sound):
    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        return await super().infer(InferInput(call.model, {"x": call.inputs["x"]}), context)


class RunsWhateverTheModel(Sound):
    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        return await super().infer(replace(call, model="double"), context)


class SignsAnotherModel(Sound):
    def signature(self, model: str) -> ModelSignature | None:
        signed = super().signature(model)
        return None if signed is None else ModelSignature(signed.outputs, signed.inputs)


# Counting


class CountsCharacters(Sound):
    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        await super().count_tokens(call, context)
        return sum(len(message.text) for message in call.messages)


class CountsTheLastMessage(Sound):
    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        await self.ready(context)
        return self.length(call.messages[-1:])


class CountsWhatFits(Sound):
    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        if self.length(call.messages) >= 200:
            raise AttemptError(FailureKind.CONTEXT_LENGTH, "the prompt is too long")
        return await super().count_tokens(call, context)


class CountsWhenItHasAPlace(Sound):
    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        async with self.place(context):
            return await super().count_tokens(call, context)


# What a service elsewhere adds


class IsLostToAChangeOfTheNetwork(Sound):
    async def network_changed(self) -> None:
        self.state = HealthState.DOWN


class AnswersNoProbe(Sound):
    async def probe(self, seconds: float) -> None:
        raise ConnectionError


BROKEN: Mapping[str, Sequence[type[Sound]]] = {
    "test_it_says_what_it_can_do": [
        CanDoNothing,
    ],
    "test_a_stream_is_deltas_and_then_one_finish": [
        ShowsContentInItsName,
        LogsContent,
        GoesOnAfterItsFinish,
        FinishesTwice,
        ForgetsItsFinish,
        SaysNothing,
    ],
    "test_it_is_ready_once_started": [
        IsNeverReady,
    ],
    "test_its_health_is_told_at_once_while_it_works": [
        AsksForItsHealth,
    ],
    "test_what_it_cannot_do_is_unsupported": [
        DoesWhatItDoesNotSay,
    ],
    "test_a_call_whose_deadline_has_passed_has_timed_out": [
        WorksTooLate,
        CallsLatenessAMistake,
    ],
    "test_as_many_calls_as_it_takes_and_some_more_are_all_answered": [
        RefusesThoseWhoWait,
    ],
    "test_calls_may_come_while_it_starts": [
        RefusesBeforeItIsReady,
    ],
    "test_stopping_ends_its_calls_and_refuses_more_however_often": [
        SaysThatItIsReadyWhenStopped,
        AnswersWhenStopped,
        StopsOnce,
        HangsWhenStopped,
    ],
    "test_it_can_be_stopped_without_a_start": [
        StopsOnlyWhatWasStarted,
    ],
    "test_cancelling_a_call_at_any_moment_frees_its_place": [
        SwallowsCancellation,
        TurnsCancellationIntoFailure,
        LosesAPlaceToTheCancelled,
    ],
    "test_odd_texts_fail_as_attempts_and_leave_it_whole": [
        RaisesWhatItLikes,
    ],
    "test_odd_calls_fail_as_attempts_and_leave_it_whole": [
        RaisesWhatItLikes,
        QuotesContent,
        QuotesContentInACause,
        SaysNothingOfItsFailures,
    ],
    "test_odd_prompts_to_count_fail_as_attempts_and_leave_it_whole": [
        BreaksForGood,
    ],
    "test_the_text_of_deltas_is_valid_unicode": [
        CutsCharacters,
    ],
    "test_no_more_tokens_are_shown_than_counted": [
        ShowsMoreThanItCounts,
    ],
    "test_an_answer_ends_at_the_length_asked_for": [
        WritesMoreThanAskedFor,
        CallsEveryEndAStop,
    ],
    "test_greedy_answers_are_alike": [
        DrawsLotsWhenGreedy,
    ],
    "test_a_seed_gives_the_same_answer_again": [
        ForgetsTheSeed,
    ],
    "test_an_answer_ends_before_a_stop_sequence": [
        IgnoresStopSequences,
        SaysTheStopSequence,
    ],
    "test_a_partial_answer_is_continued_exactly": [
        BeginsAnewInsteadOfContinuing,
        ContinuesAsIfItWereATurn,
    ],
    "test_an_answer_has_the_form_asked_for": [
        KeepsToNoForm,
        KeepsToAnotherForm,
    ],
    "test_log_probabilities_are_those_of_the_text": [
        ReportsNoLogprobs,
        ReportsProbabilities,
        ReportsTheWorstFirst,
        ReportsMoreThanAskedFor,
        ReportsOtherTokens,
    ],
    "test_a_prompt_beyond_the_context_is_refused_before_any_text": [
        CutsTheContext,
        CallsALongPromptAMistake,
    ],
    "test_closing_a_stream_stops_the_work_and_frees_its_place": [
        GoesOnWorking,
        LosesPlaces,
    ],
    "test_closing_a_stream_that_was_never_read_does_no_harm": [
        WorksOnceItIsCalled,
    ],
    "test_a_stream_that_was_lost_goes_on_where_it_stopped": [
        ResumesFromTheBeginning,
        SkipsWhenItResumes,
        ResumesWithoutAnEnd,
    ],
    "test_a_stream_that_nobody_began_cannot_be_resumed": [
        ResumesWhatNobodyBegan,
    ],
    "test_a_resumption_whose_deadline_has_passed_has_timed_out": [
        ResumesTooLate,
    ],
    "test_there_is_one_vector_a_text_in_the_order_given": [
        MixesTexts,
        EmbedsInOtherNumbers,
        EmbedsAllInOne,
        EmbedsInBytesOfAnotherShape,
        EmbedsInNoNumbers,
    ],
    "test_every_label_has_a_score_for_each_text_in_the_order_given": [
        MixesTextsToClassify,
        NamesALabelTwice,
        NamesNoLabels,
        NamesTooManyLabels,
    ],
    "test_outputs_are_tensors_whose_bytes_fit_their_shapes": [
        GivesBytesOfAnotherShape,
        GivesNothing,
    ],
    "test_odd_tensors_fail_as_attempts_and_leave_it_whole": [
        FailsOnOddTensors,
    ],
    "test_a_model_that_it_does_not_have_is_unknown": [
        RunsWhateverTheModel,
    ],
    "test_what_it_tells_of_a_model_is_what_that_takes_and_gives": [
        SignsAnotherModel,
    ],
    "test_a_prompt_is_counted_as_a_generation_counts_it": [
        CountsCharacters,
    ],
    "test_more_messages_have_more_tokens_even_beyond_the_context": [
        CountsTheLastMessage,
        CountsWhatFits,
    ],
    "test_counting_waits_for_no_generation": [
        CountsWhenItHasAPlace,
    ],
    "test_a_change_of_the_network_costs_no_call": [
        IsLostToAChangeOfTheNetwork,
        AnswersNoProbe,
    ],
    "test_cancelling_whoever_reads_a_stream_stops_the_work_and_frees_its_place": [
        GoesOnWhenItsReaderIsCancelled,
    ],
    "test_odd_texts_to_classify_fail_as_attempts_and_leave_it_whole": [
        RaisesWhatItLikes,
    ],
    "test_those_who_wait_for_a_place_can_be_cancelled_and_others_still_get_theirs": [
        ForgetsThatSomebodyLeftTheQueue,
    ],
}
"""By the test that is to find it."""


FAILS = (
    AssertionError,
    AttemptError,
    InvalidRequest,
    RuntimeError,
    UnicodeEncodeError,
    ValueError,
    LookupError,
    TypeError,
)
"""How a test of the contract fails: by its own words, or by what a backend raised."""


class TestSound(All):
    """What keeps every promise passes."""


@pytest.mark.parametrize(
    ("test", "broken"),
    [pytest.param(test, each, id=each.__name__) for test, broken in BROKEN.items() for each in broken],
)
def test_what_a_backend_breaks_is_found(test: str, broken: type[Sound]) -> None:
    class Suite(All):
        patience = 0.5

        @classmethod
        def make(cls) -> Backend:
            return broken()

    Suite.setup_class()
    try:
        with pytest.raises(FAILS):
            getattr(Suite(), test)()
    finally:
        with suppress(RuntimeError):
            Suite.teardown_class()


def test_every_test_of_the_contract_finds_something() -> None:
    assert {name for name in dir(All) if name.startswith("test_")} == set(BROKEN)


def test_a_suite_that_does_not_say_how_its_backend_is_made_is_told() -> None:
    class Unmade(LifetimeTests):
        pass

    with pytest.raises(NotImplementedError, match=r"Unmade does not say how its backend is made"):
        Unmade.setup_class()
