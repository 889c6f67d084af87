"""Response formats from outside: kept whole, or refused at once; none ends or holds the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from edgewise.backends import CallContext
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.llama_cpp.gbnf import require_readable
from edgewise.backends.llama_cpp.schema import kept_whole
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.answer import Delta
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ModelName

from .tiny import TinyModel, write_tiny_model

in_one_loop = pytest.mark.asyncio(loop_scope="module")

DEEP: dict[str, Any] = {"type": "object"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaCppBackend]:
    path = write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf", TinyModel())
    model = ModelFile("tiny", ModelSettings(f"file:{path}"), path.parent)
    backend = LlamaCppBackend("phone", LlamaCppSettings(ModelName("tiny"), context_tokens=128, threads=1), model)
    await backend.start()
    yield backend
    await backend.stop()


async def answer(backend: LlamaCppBackend, response_format: Mapping[str, Any], *, seed: int = 0) -> str:
    call = GenerateInput((Message.user("Hello"),), 64, 1.0, seed=seed, response_format=dict(response_format))
    async with asyncio.timeout(20):
        events = [event async for event in backend.generate(call, CallContext("r", Deadline(1e12)))]
    return "".join(event.text for event in events if isinstance(event, Delta))


def schema(described: object) -> dict[str, Any]:
    return {"type": "json_schema", "schema": described}


def grammar(text: str) -> dict[str, Any]:
    return {"type": "grammar", "grammar": text}


HOSTILE = {
    "a text without end": schema({"type": "string", "maxLength": 10**9}),
    "a text of endless length": schema({"type": "string", "minLength": 10**9}),
    "endless items": schema({"type": "array", "items": {"type": "string"}, "minItems": 10**9}),
    "a pattern that grows": schema({"type": "string", "pattern": "^((a{0,1000}){0,1000}){0,1000}$"}),
    "a pattern of a billion": schema({"type": "string", "pattern": "^a{1000000000}$"}),
    "no pattern": schema({"type": "string", "pattern": "^(a$"}),
    "a deep pattern": schema({"type": "string", "pattern": f"^{'(' * 2000}a{')' * 2000}$"}),
    "deep nesting": schema(DEEP),
    "countless parts": schema({"anyOf": [{"const": str(number)} for number in range(20_000)]}),
    "itself": schema({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    "each other": schema({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    "a number of required properties": schema({"type": "object", "properties": {"a": {}}, "required": 5}),
    "a list of properties": schema({"type": "object", "properties": ["a"]}),
    "an object for a type": schema({"type": {"x": 1}}),
    "a number of parts": schema({"allOf": 5}),
    "nobody": schema({"$ref": "#/$defs/a"}),
    "left recursion": grammar('root ::= root "a" | "b"'),
    "hidden left recursion": grammar('root ::= e root "a"\ne ::= ""'),
    "nothing again and again": grammar('root ::= (x)* "a"\nx ::= ""?'),
    "backwards": grammar('root ::= "a"{5,1}'),
    "a billion": grammar('root ::= "a"{1000000000}'),
    "too much altogether": grammar("root ::= " + '"a"{2000} ' * 30),
    "parentheses": grammar(f'root ::= {"(" * 20_000}"a"{")" * 20_000}'),
    "a token that is none": grammar("root ::= <[999999]>"),
    "a control token": grammar("root ::= <|im_end|>"),
    "a long text": grammar(f'root ::= "{"a" * 3_000_000}"'),
    "half a character": grammar('root ::= "\ud800"'),
    "a NUL": grammar('root ::= "a\0b"'),
    "no rule": grammar(""),
}


@in_one_loop
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_format_is_refused_and_harms_nobody(tiny: LlamaCppBackend, name: str) -> None:
    before = tiny.worker.pid
    with pytest.raises(AttemptError) as caught:
        await answer(tiny, HOSTILE[name])
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert tiny.worker.pid == before


@pytest.mark.parametrize(
    ("described", "named"),
    [
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "allOf"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "no value"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 2}, "above its `maxItems`"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "above its `maxLength`"),
        ({"type": "string", "enum": [1, 2]}, "no value"),
        ({"type": "string", "const": 1}, "no value"),
        ({"not": {}}, "`not`"),
        ({"type": "object", "properties": {"a": False}}, "no value"),
        ({"type": "object", "properties": {}, "required": ["a"]}, "requires a property"),
        ({"type": "number", "minimum": 0}, "`minimum`"),
        ({"type": "integer", "minimum": 0}, "bounds a number"),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 3}, "bounds a number"),
        ({"type": "integer", "minimum": 1.5, "exclusiveMinimum": 0, "maximum": 3}, "bounds a number"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "`uniqueItems`"),
        ({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2}, "lists 1 items"),
        ({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a", "maxLength": 2}, "`maxLength` beside `$ref`"),
        ({"anyOf": [{"type": "string"}], "maxLength": 2}, "`maxLength` beside `anyOf`"),
        ({"type": "object", "patternProperties": {"a": {}}}, "`patternProperties`"),
        ({"type": "wizard"}, "none of JSON's"),
        ({"type": "string", "pattern": '^"$'}, "characters that JSON escapes"),
        ({"type": "string", "pattern": "^[!-~]*$"}, "characters that JSON escapes"),
        ({"type": "string", "pattern": "^[^a]*$"}, "characters that JSON escapes"),
        ({"type": "string", "pattern": "^\\n$"}, "characters that JSON escapes"),
        ({"type": "string", "pattern": "^\\d+$"}, "write sets such as"),
        ({"type": "string", "pattern": "^(a{0,9})*$"}, "repeats what it repeats"),
    ],
)
def test_what_a_grammar_cannot_keep_is_refused_by_its_name(described: dict[str, Any], named: str) -> None:
    with pytest.raises(AttemptError) as caught:
        kept_whole(described)
    assert caught.value.kind is FailureKind.INVALID_REQUEST
    assert named in caught.value.sentence


def test_what_says_the_same_in_other_words_is_kept() -> None:
    assert kept_whole({"title": "T", "type": "integer", "minimum": 3, "exclusiveMaximum": 6})["enum"] == [3, 4, 5]
    assert kept_whole({"type": "string", "enum": ["a", 1, None]})["enum"] == ["a"]
    colour = {"type": "string", "enum": ["red"]}
    wrapped = {"$defs": {"C": colour}, "properties": {"c": {"description": "d", "allOf": [{"$ref": "#/$defs/C"}]}}}
    assert kept_whole(wrapped)["properties"] == {"c": {"$ref": "#/$defs/C"}}
    assert kept_whole({"type": "array", "items": True})["items"]["anyOf"]
    deep = {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
    assert kept_whole(deep) == deep


@in_one_loop
@pytest.mark.parametrize("seed", range(3))
async def test_a_range_and_a_length_are_kept(tiny: LlamaCppBackend, seed: int) -> None:
    assert json.loads(
        await answer(tiny, schema({"type": "integer", "minimum": -3, "maximum": 12}), seed=seed)
    ) in range(-3, 13)
    listed = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}
    assert 2 <= len(json.loads(await answer(tiny, schema(listed), seed=seed))) <= 4


@in_one_loop
async def test_texts_of_an_answer_are_those_of_json(tiny: LlamaCppBackend) -> None:
    """A model of random weights says control characters, and what is no UTF-8, as readily as letters."""
    text = {"type": "string", "minLength": 5, "maxLength": 5}
    for seed in range(5):
        assert len(json.loads(await answer(tiny, schema(text), seed=seed))) >= 5
    dots = {"type": "string", "pattern": "^a.-[0-9]{2}.$"}
    for seed in range(5):
        assert json.loads(await answer(tiny, schema(dots), seed=seed)).startswith("a")


@in_one_loop
async def test_the_longest_lengths_that_are_taken_are_read(tiny: LlamaCppBackend) -> None:
    await answer(tiny, schema({"type": "string", "maxLength": 1000}))
    await answer(tiny, schema({"type": "array", "items": {"type": "null"}, "minItems": 10, "maxItems": 1000}))
    await answer(tiny, grammar('root ::= "a"{0,2000}'))


def test_signs_in_texts_sets_and_comments_of_a_grammar_are_no_grammar() -> None:
    text = 'root ::= "<((({5,1}" [<({] "\\"<" [\\]<] # <(((\n'
    assert require_readable(text) == text.encode()
