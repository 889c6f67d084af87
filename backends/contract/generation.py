"""What a router relies on in a stream of text."""

from __future__ import annotations

import json
from typing import Any

from ...core.answer import Delta, Finish, FinishReason
from ...core.content import GenerateInput, Message
from ...core.failure import FailureKind
from ...core.request import Task
from .suite import MARKER, Suite, failure, on_loop, outcome

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}},
    "required": ["sure"],
    "additionalProperties": False,
}


class GenerationTests(Suite):
    """For backends that `generate`."""

    @on_loop
    async def test_a_stream_is_deltas_and_then_one_finish(self) -> None:
        *deltas, finish = await self.events(self.call())
        assert isinstance(finish, Finish), "a stream ended without a Finish"
        for delta in deltas:
            assert isinstance(delta, Delta), "something other than text came before the Finish"
            assert delta.tokens >= 0
        assert any(isinstance(delta, Delta) and delta.text for delta in deltas), "the answer is empty"

    @on_loop
    async def test_the_text_of_deltas_is_valid_unicode(self) -> None:
        for event in await self.events(self.call(temperature=1.5)):
            if isinstance(event, Delta):
                event.text.encode()

    @on_loop
    async def test_no_more_tokens_are_shown_than_counted(self) -> None:
        *deltas, finish = await self.events(self.call())
        assert isinstance(finish, Finish)
        if finish.usage.output_tokens:
            assert sum(event.tokens for event in deltas if isinstance(event, Delta)) <= finish.usage.output_tokens

    @on_loop
    async def test_an_answer_ends_at_the_length_asked_for(self) -> None:
        self.require_honoured(self.honours_length, "max_output_tokens")
        _, finish = await self.answer(self.call(max_output_tokens=4))
        assert finish.reason is FinishReason.LENGTH, "it did not end at `max_output_tokens`, or does not say so"
        assert finish.usage.output_tokens <= 4

    @on_loop
    async def test_greedy_answers_are_alike(self) -> None:
        self.require_honoured(self.honours_seed, "seed")
        first, _ = await self.answer(self.call(seed=7))
        again, _ = await self.answer(self.call(seed=8))
        assert first == again

    @on_loop
    async def test_a_seed_gives_the_same_answer_again(self) -> None:
        self.require_honoured(self.honours_seed, "seed")
        warm = self.call(temperature=1.5, seed=42)
        assert (await self.answer(warm))[0] == (await self.answer(warm))[0]

    @on_loop
    async def test_an_answer_ends_before_a_stop_sequence(self) -> None:
        self.require_honoured(self.honours_stop and self.honours_seed, "stop")
        whole, _ = await self.answer(self.call())
        stop = whole[len(whole) // 2 :][:3]
        assert stop, "the answer is too short to be stopped in"
        text, finish = await self.answer(self.call(stop=("never said", stop)))
        assert text == whole.partition(stop)[0]
        assert finish.reason is FinishReason.STOP

    @on_loop
    async def test_a_partial_answer_is_continued_exactly(self) -> None:
        self.require_honoured(self.backend.capabilities.continues and self.honours_seed, "a text to be continued")
        *deltas, finish = await self.events(self.call())
        texts = [event.text for event in deltas if isinstance(event, Delta)]
        for cut in range(1, len(texts), 5):
            begun, expected = "".join(texts[:cut]), "".join(texts[cut:])
            rest, _ = await self.answer(self.call(Message.assistant(begun)))
            if isinstance(finish, Finish) and finish.reason is FinishReason.STOP:
                assert rest == expected, f"cut after {cut} pieces of text, it went on otherwise"
            else:
                assert rest.startswith(expected), f"cut after {cut} pieces of text, it went on otherwise"

    @on_loop
    async def test_an_answer_has_the_form_asked_for(self) -> None:
        self.require_honoured(self.backend.capabilities.constrains, "response_format")
        form = {"type": "json_schema", "schema": _SCHEMA}
        text, _ = await self.answer(self.call(response_format=form, max_output_tokens=48))
        assert isinstance(json.loads(text)["sure"], bool)

    @on_loop
    async def test_log_probabilities_are_those_of_the_text(self) -> None:
        self.require_honoured(self.backend.capabilities.logprobs, "logprobs")
        *deltas, _ = await self.events(self.call(logprobs=2))
        entries = [entry for event in deltas if isinstance(event, Delta) for entry in event.logprobs]
        assert entries, "no log-probability came"
        for entry in entries:
            assert entry.logprob <= 1e-6
            assert [value for _, value in entry.top] == sorted((value for _, value in entry.top), reverse=True)
        text = "".join(event.text for event in deltas if isinstance(event, Delta))
        assert "".join(entry.token for entry in entries) == text

    @on_loop
    async def test_a_prompt_beyond_the_context_is_refused_before_any_text(self) -> None:
        limit = self.backend.capabilities.context_tokens
        self.require_honoured(limit is not None, "a context's length")
        assert limit is not None
        refused = await failure(
            self.events(self.call(Message.user(f"{MARKER} " * limit))), "a prompt beyond the context"
        )
        assert refused.kind is FailureKind.CONTEXT_LENGTH
        await self.ask(Task.GENERATE)

    @on_loop
    async def test_odd_calls_fail_as_attempts_and_leave_it_whole(self) -> None:
        broken = f"{MARKER} \ud800"
        odd = [
            GenerateInput((Message.user(broken),), max_output_tokens=4),
            self.call(stop=(broken,), max_output_tokens=4),
            self.call(response_format={"type": MARKER}, max_output_tokens=4),
            self.call(response_format={"type": "json_schema", "schema": {"$ref": MARKER}}, max_output_tokens=4),
        ]
        for call in odd:
            await outcome(self.events(call))
            await self.ask(Task.GENERATE)
