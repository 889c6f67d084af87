"""What llama.cpp answers, with a real model."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import Delta, Finish, FinishReason
from edgewise.core.content import CountTokensInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind

if TYPE_CHECKING:
    from tests.backends.llama_cpp.conftest import Asker

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRANCE = Message.user("What is the capital of France? Tell me about it.")


async def test_it_streams_an_answer_and_says_how_it_ended(phone: Asker) -> None:
    *deltas, finish = await phone.events(FRANCE, max_output_tokens=12)
    assert isinstance(finish, Finish)
    assert len(deltas) == 12
    assert "Paris" in "".join(delta.text for delta in deltas if isinstance(delta, Delta))
    assert finish.reason is FinishReason.LENGTH
    assert (finish.model, finish.place, finish.queue_depth) == ("smollm2", "device", 0)
    assert finish.usage.output_tokens == sum(delta.tokens for delta in deltas if isinstance(delta, Delta))
    assert 30 < finish.usage.prompt_tokens < 60


async def test_an_answer_that_the_model_ends_says_so(phone: Asker) -> None:
    _, finish = await phone.answer(Message.user("Say just yes or no: is Paris in France?"), max_output_tokens=200)
    assert finish.reason is FinishReason.STOP
    assert finish.usage.output_tokens < 200


async def test_the_same_seed_gives_the_same_text_and_another_gives_another(phone: Asker) -> None:
    story = Message.user("Tell me a story.")
    texts = [(await phone.answer(story, temperature=1.5, seed=seed))[0] for seed in (7, 7, 8)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_nothing_of_a_stop_sequence_is_shown(phone: Asker) -> None:
    whole, _ = await phone.answer(FRANCE)
    before, _, _ = whole.partition("France")
    text, finish = await phone.answer(FRANCE, stop=("never said", "ance is"), logprobs=0)
    assert text == before + "Fr"
    assert finish.reason is FinishReason.STOP
    text, entries = await phone.logprobs(FRANCE, stop=("of France",), logprobs=0)
    assert text == before.removesuffix("of ")
    # A token may reach from the text into the stop sequence; none lies in it.
    assert "".join(entry.token for entry in entries[:-1]) in text
    assert len(entries[-1].token) <= len(" of")


async def test_a_partial_answer_is_continued_exactly(phone: Asker) -> None:
    whole, entries = await phone.logprobs(FRANCE, logprobs=0, max_output_tokens=32)
    cuts = range(1, 32, 5)
    for cut in cuts:
        begun = "".join(entry.token for entry in entries[:cut])
        rest, _ = await phone.answer(FRANCE, Message.assistant(begun), max_output_tokens=32 - cut)
        assert begun + rest == whole


async def test_greedy_decoding_goes_on_exactly_from_a_cut_within_a_word(phone: Asker) -> None:
    whole, _ = await phone.answer(FRANCE, max_output_tokens=24)
    for cut in range(1, len(whole), 7):
        rest, _ = await phone.answer(FRANCE, Message.assistant(whole[:cut]), max_output_tokens=6)
        assert rest
        assert whole.startswith(whole[:cut] + rest) or (whole[:cut] + rest).startswith(whole)


async def test_an_answer_goes_on_exactly_after_a_limit_within_a_character(phone: Asker) -> None:
    asked = Message.user("Write one sentence with 🦙 emojis and naïve café.")
    whole, _ = await phone.answer(asked, max_output_tokens=24)
    for limit in range(1, 7):
        text, finish = await phone.answer(asked, max_output_tokens=limit)
        assert "\ufffd" not in text
        assert finish.usage.output_tokens == limit
        rest, _ = await phone.answer(asked, Message.assistant(text), max_output_tokens=24)
        assert (text + rest).startswith(whole)


async def test_log_probabilities_are_those_of_the_tokens_shown(phone: Asker) -> None:
    text, entries = await phone.logprobs(FRANCE, logprobs=3)
    assert "".join(entry.token for entry in entries) == text
    for entry in entries:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token, entry.logprob)  # greedy
        assert entry.top[0][1] >= entry.top[1][1] >= entry.top[2][1]
        assert 0.0 < sum(math.exp(value) for _, value in entry.top) <= 1.0


async def test_an_answer_follows_a_json_schema(phone: Asker) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "schema": schema}
    text, finish = await phone.answer(FRANCE, response_format=format_, max_output_tokens=80)
    answer = json.loads(text)
    assert answer.keys() == {"city", "large"}
    assert answer["city"] in ("Paris", "Rome")
    assert isinstance(answer["large"], bool)
    assert finish.reason is FinishReason.STOP


async def test_an_answer_follows_a_grammar_and_json_object_is_an_object(phone: Asker) -> None:
    text, _ = await phone.answer(FRANCE, response_format={"type": "grammar", "grammar": 'root ::= "yes" | "no"'})
    assert text in ("yes", "no")
    text, _ = await phone.answer(FRANCE, response_format={"type": "json_object"}, max_output_tokens=200)
    assert isinstance(json.loads(text), dict)


async def test_what_goes_beyond_a_cut_within_a_token_counts_like_any_other(phone: Asker) -> None:
    whole, entries = await phone.logprobs(FRANCE, logprobs=2)
    cut = whole.index("Paris") + 2
    begun = Message.assistant(whole[:cut])
    for limit in (1, 2):
        *deltas, finish = await phone.events(FRANCE, begun, max_output_tokens=limit, logprobs=2)
        assert isinstance(finish, Finish)
        assert finish.usage.output_tokens == limit
        shown = [entry for delta in deltas if isinstance(delta, Delta) for entry in delta.logprobs]
        assert "".join(entry.token for entry in shown) == "".join(
            delta.text for delta in deltas if isinstance(delta, Delta)
        )
        (paris,) = (entry for entry in entries if entry.token == " Paris")
        assert (shown[0].token, shown[0].top) == ("ris", paris.top)
        assert shown[0].logprob == paris.logprob
    # Held back, because it may begin a stop sequence; or cut off, because it is one.
    text, finish = await phone.answer(FRANCE, begun, max_output_tokens=1, stop=("ris or Rome",))
    assert (text, finish.usage.output_tokens, finish.reason) == ("ris", 1, FinishReason.LENGTH)
    text, finish = await phone.answer(FRANCE, begun, max_output_tokens=1, stop=("is",))
    assert (text, finish.usage.output_tokens, finish.reason) == ("r", 1, FinishReason.STOP)


CITY = {
    "type": "json_schema",
    "schema": {
        "type": "object",
        "properties": {"große Stadt": {"type": "string"}, "large": {"type": "boolean"}},
        "required": ["große Stadt", "large"],
        "additionalProperties": False,
    },
}


async def test_greedy_decoding_within_a_format_goes_on_exactly_from_any_cut(phone: Asker) -> None:
    whole, _ = await phone.answer(FRANCE, response_format=CITY, max_output_tokens=64)
    json.loads(whole)
    for cut in range(1, len(whole) + 1, 9):
        rest, _ = await phone.answer(FRANCE, Message.assistant(whole[:cut]), response_format=CITY, max_output_tokens=64)
        assert whole[:cut] + rest == whole


async def test_what_another_began_within_a_format_is_ended_within_it(phone: Asker) -> None:
    begun = Message.assistant('{"große Stadt": "Gießen", "la')
    for temperature in (0.0, 1.5):
        rest, _ = await phone.answer(
            FRANCE, begun, response_format=CITY, temperature=temperature, max_output_tokens=200
        )
        assert json.loads(begun.text + rest).keys() == {"große Stadt", "large"}
    with pytest.raises(AttemptError, match="does not follow the response format") as caught:
        await phone.answer(FRANCE, Message.assistant('{"town'), response_format=CITY)
    assert caught.value.kind is FailureKind.INVALID_REQUEST


async def test_a_format_that_leads_to_nothing_is_the_callers_mistake_and_ends_no_worker(phone: Asker) -> None:
    before = phone.backend.worker.pid
    nothing = {"type": "grammar", "grammar": 'root ::= "yes" [\\U0010FFFF-\\U0010FFFF] x\nx ::= [^\\x00-\\U0010FFFF]'}
    for temperature in (0.0, 1.0):
        with pytest.raises(AttemptError) as caught:
            await phone.answer(FRANCE, response_format=nothing, temperature=temperature)
        assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert phone.backend.worker.pid == before


async def test_a_small_batch_continues_too(small_batches: Asker) -> None:
    whole, _ = await small_batches.answer(FRANCE)
    rest, _ = await small_batches.answer(FRANCE, Message.assistant(whole[:60]))
    assert (whole[:60] + rest).startswith(whole)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "grammar", "grammar": "root ::= (("},
        {"type": "grammar", "grammar": 'root ::= root "a" | "b"'},
        {"type": "grammar"},
        {"type": "json_schema", "schema": {"$ref": "https://schemas.example/secret.json"}},
        {"type": "json_schema", "schema": {"enum": []}},
        {"type": "json_schema", "schema": {"type": "secret"}},
        {"type": "json_schema", "schema": {"$ref": "#"}},
        {"type": "json_schema"},
        {"type": "secret"},
    ],
)
async def test_a_format_that_nothing_can_follow_is_the_callers_mistake(
    phone: Asker, response_format: dict[str, Any]
) -> None:
    with pytest.raises(AttemptError) as caught:
        await phone.answer(FRANCE, response_format=response_format)
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert "secret" not in str(caught.value)


async def test_a_schema_elsewhere_is_refused_before_the_converter_sees_it(phone: Asker) -> None:
    nested = {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "https://schemas.example/secret.json"}]}}}
    with pytest.raises(AttemptError, match="refers to another document"):
        await phone.answer(FRANCE, response_format={"type": "json_schema", "schema": nested})


async def test_a_prompt_too_long_is_refused_with_the_counts_and_without_waiting_for_a_turn(phone: Asker) -> None:
    busy = asyncio.create_task(phone.answer(FRANCE, max_output_tokens=400, stop=()))
    while not phone.backend.worker.running:  # noqa: ASYNC110  # a turn is no event
        await asyncio.sleep(0)
    with pytest.raises(AttemptError, match=r"\b30\d\d tokens.*\b2048\b") as caught:
        await phone.answer(Message.user("hello " * 3000))
    assert caught.value.kind is FailureKind.CONTEXT_LENGTH
    assert not busy.done()
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)


async def test_a_context_used_up_ends_the_answer(small_phone: Asker) -> None:
    _, finish = await small_phone.answer(
        Message.user("Write a very long story about a ship at sea."), max_output_tokens=1000
    )
    assert finish.reason is FinishReason.LENGTH
    assert finish.usage.prompt_tokens + finish.usage.output_tokens == 96


async def test_a_lone_surrogate_is_the_callers_mistake(phone: Asker) -> None:
    with pytest.raises(AttemptError) as caught:
        await phone.answer(Message.user("\ud800"))
    assert caught.value.kind is FailureKind.INVALID_REQUEST


async def test_the_memory_serves_only_calls_of_the_same_data_classes(phone: Asker) -> None:
    from edgewise.backends.process.engine import Parcel

    async def reused(*data_classes: str, seed: int | None = None, begun: str = "") -> int:
        fields = {
            "messages": [{"role": "user", "content": FRANCE.text}, {"role": "assistant", "content": begun}][
                : 1 + bool(begun)
            ],
            "continues": bool(begun),
            "max_output_tokens": 1,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": seed,
            "stop": [],
            "response_format": None,
            "logprobs": None,
            "data_classes": list(data_classes),
        }
        return int((await phone.backend.worker.unary(Parcel(fields))).fields["reused_tokens"])

    await reused("health")
    assert await reused("health") > 30
    assert await reused("public") == 0
    assert await reused("public", "tagged") == 0
    assert await reused("public", "tagged") > 30
    assert await reused("public", "tagged", seed=1) == 0
    assert await reused("public", "tagged", begun="The capital of France is") > 30
    assert await reused("health", begun="The capital of France is") == 0


async def test_tokens_are_counted_as_a_generation_counts_them_and_beyond_the_context_too(phone: Asker) -> None:
    context = CallContext("request", Deadline(1e12))
    _, finish = await phone.answer(FRANCE, max_output_tokens=1)
    counted = await phone.backend.count_tokens(CountTokensInput((FRANCE,)), context)
    assert counted == finish.usage.prompt_tokens
    long = CountTokensInput((Message.user("word " * 5000),))
    assert await phone.backend.count_tokens(long, context) > 5000
