"""Response formats of answers by onnxruntime-genai: kept whole, or refused at once; none ends or holds the worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from edgewise.backends import CallContext
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.onnx import OnnxSettings
from edgewise.backends.onnx.generate_backend import OnnxGenerateBackend
from edgewise.backends.onnx.settings import OnnxTask
from edgewise.core.answer import Delta, Finish, FinishReason
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ModelName

from ._tiny_generator import CONTEXT, write_generator

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEEP: dict[str, Any] = {"type": "object"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}}

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 18, "maximum": 67},
        "colour": {"enum": ["red", "green"]},
        "marks": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "colour", "marks"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def writer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnnxGenerateBackend]:
    """Random weights, that would never write JSON by themselves."""
    path = write_generator(tmp_path_factory.mktemp("tiny"))
    settings = OnnxSettings(OnnxTask.GENERATE, model=ModelName("tiny"), context_tokens=CONTEXT, threads=1)
    model = ModelFile("tiny", ModelSettings(f"file:{path}"), path.parent)
    backend = OnnxGenerateBackend("writer", settings, {"tiny": model})
    await backend.start()
    yield backend
    await backend.stop()


async def answer(
    backend: OnnxGenerateBackend, response_format: Mapping[str, Any], *messages: Message, **options: Any
) -> tuple[str, Finish]:
    asked = messages or (Message.user("Hello"),)
    call = GenerateInput(
        asked, **{"max_output_tokens": 200, "temperature": 1.0, **options}, response_format=response_format
    )
    *deltas, finish = [event async for event in backend.generate(call, CallContext("r", Deadline(1e12)))]
    assert isinstance(finish, Finish)
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), finish


def schema(described: object) -> dict[str, Any]:
    return {"type": "json_schema", "schema": described}


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 1}, {"seed": 2}, {"seed": 3}], ids=str)
async def test_an_answer_is_of_its_schema_and_ends_with_it(writer: OnnxGenerateBackend, options: Any) -> None:
    text, finish = await answer(writer, schema(PERSON), **options)
    person = json.loads(text)
    assert [*person] == ["name", "age", "colour", "marks"]
    assert 1 <= len(person["name"]) <= 8
    assert person["age"] in range(18, 68)
    assert person["colour"] in ("red", "green")
    assert len(person["marks"]) in (1, 2, 3)
    assert finish.reason is FinishReason.STOP


async def test_any_object_is_one(writer: OnnxGenerateBackend) -> None:
    text, finish = await answer(writer, {"type": "json_object"}, seed=4, max_output_tokens=400)
    assert text.lstrip().startswith("{")
    if finish.reason is FinishReason.STOP:
        assert isinstance(json.loads(text), dict)


async def test_a_seed_gives_the_same_answer(writer: OnnxGenerateBackend) -> None:
    first, second = [await answer(writer, schema(PERSON), seed=9) for _ in range(2)]
    assert first == second


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_an_answer_that_has_begun_goes_on_within_its_format(
    writer: OnnxGenerateBackend, temperature: float
) -> None:
    whole, _ = await answer(writer, schema(PERSON), temperature=temperature, seed=5)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        begun = Message.assistant(whole[:cut])
        rest, _ = await answer(writer, schema(PERSON), Message.user("Hello"), begun, temperature=temperature, seed=5)
        assert json.loads(whole[:cut] + rest)
        if temperature == 0.0:
            assert whole[:cut] + rest == whole


async def test_one_that_began_otherwise_is_refused(writer: OnnxGenerateBackend) -> None:
    with pytest.raises(AttemptError, match="begin another") as caught:
        await answer(writer, schema(PERSON), Message.user("Hello"), Message.assistant("I think"))
    assert caught.value.kind is FailureKind.INVALID_REQUEST


REFUSED = {
    "a word that is not kept": (schema({"not": {"type": "string"}}), "`not`"),
    "one deep down": (schema({"type": "array", "items": {"uniqueItems": True, "type": "array"}}), "`uniqueItems`"),
    "one that asks to be let off": (schema({"x-guidance": {"lenient": True}, "not": {}}), "`not`"),
    "no value": (schema({"type": "integer", "minimum": 5, "maximum": 2}), "fits no value"),
    "no number": (schema({"type": "array", "maxItems": True}), "`maxItems`"),
    "another document": (schema({"$ref": "https://example.org/s.json"}), ""),
    "nobody": (schema({"$ref": "#/$defs/a"}), ""),
    "itself": (schema({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}), ""),
    "deep nesting": (schema(DEEP), ""),
    "a large multiple": (schema({"type": "integer", "multipleOf": 999_983}), "`multipleOf`"),
    "a small multiple": (schema({"type": "number", "multipleOf": 1e-9}), "`multipleOf`"),
    "no pattern": (schema({"type": "string", "pattern": "^(a$"}), ""),
    "half a character": (schema({"enum": ["\ud800"]}), ""),
    "a long one": (schema({"enum": ["a" * 300_000]}), "bytes"),
    "no schema": (schema(5), "not a JSON object"),
    "a grammar": ({"type": "grammar", "grammar": 'root ::= "a"'}, "json_object and json_schema"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_kept_is_refused_by_its_name_and_harms_nobody(
    writer: OnnxGenerateBackend, name: str
) -> None:
    response_format, said = REFUSED[name]
    before = writer.worker.pid
    with pytest.raises(AttemptError) as caught:
        await answer(writer, response_format, max_output_tokens=4)
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert said in caught.value.sentence
    assert writer.worker.pid == before


async def test_a_refusal_repeats_nothing_of_the_schema(writer: OnnxGenerateBackend) -> None:
    with pytest.raises(AttemptError) as caught:
        await answer(writer, schema({"enum": ["secret"], "properties": {"secret": {"secret": 1, "type": "secret"}}}))
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    "large",
    [
        {"type": "string", "pattern": "^((a{0,1000}){0,1000}){0,1000}$"},
        {"type": "string", "pattern": "^a{1000000000}$"},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"anyOf": [{"const": str(number)} for number in range(5_000)]},
    ],
    ids=["a pattern that grows", "a pattern of a billion", "a text", "items", "parts"],
)
async def test_a_large_one_is_begun_or_refused_and_holds_nobody(
    writer: OnnxGenerateBackend, large: dict[str, Any]
) -> None:
    before = writer.worker.pid
    with suppress(AttemptError):
        text, finish = await answer(writer, schema(large), max_output_tokens=4)
        assert finish.reason is FinishReason.LENGTH or json.loads(text)
    assert writer.worker.pid == before


async def test_the_likelihoods_are_the_models_own(writer: OnnxGenerateBackend) -> None:
    """What the format forbids keeps the chance that the model gives it."""
    call = GenerateInput(
        (Message.user("Hello"),), max_output_tokens=1, temperature=0.0, logprobs=3, response_format=schema(PERSON)
    )
    first, *_ = [event async for event in writer.generate(call, CallContext("r", Deadline(1e12)))]
    assert isinstance(first, Delta)
    (chosen,) = first.logprobs
    assert chosen.token == "{"
    assert chosen.logprob < min(value for _, value in chosen.top)
