"""Response formats from outside: kept whole, or refused at once; none ends or holds the worker."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date
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

ENDLESS = {
    "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}},
    "$ref": "#/$defs/n",
}
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
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {"const": 1}}}]}, "the same property"),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "additionalProperties": False}]}, "allOf"),
        ({"allOf": []}, "no list, or an empty one"),
        ({"enum": "ab"}, "no list, or an empty one"),
        ({"anyOf": [{"enum": "ab"}]}, "no list, or an empty one"),
        ({"type": "object", "properties": {"a": {}}, "required": "a"}, "no list of names"),
        ({"const": {"a": [float("nan")]}}, "no JSON"),
        ({"enum": [1, float("inf")]}, "no JSON"),
        ({"type": []}, "none of JSON's"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": True}, "no number up to"),
        ({"type": "array", "items": {"type": "null"}, "minItems": True}, "no number up to"),
        ({"type": "string", "maxLength": False}, "no number up to"),
        ({"type": "string", "minLength": False, "maxLength": 3}, "no number up to"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "fit two"),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, "fit two"),
        ({"oneOf": [{"type": "object", "properties": {"a": {"const": n}}} for n in (1, 2)]}, "fit two"),
        (ENDLESS, "another of its kind"),
        ({"$ref": "#/$defs/a"}, "does not have"),
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
        ({"type": "string", "pattern": "^a|b$"}, "outside of parentheses"),
        ({"type": "string", "pattern": "^a$b$"}, "at its ends alone"),
        ({"type": "string", "pattern": "^^a$"}, "at its ends alone"),
        ({"type": "string", "pattern": "^a++b$"}, "lazy or possessive"),
        ({"type": "string", "pattern": "a"}, "from `^` to `$`"),
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
    kept = kept_whole(wrapped)
    assert kept["$defs"] == {"ref0": {"enum": ["red"]}}
    assert kept["properties"] == {"c": {"$ref": "#/$defs/ref0"}}
    assert kept_whole({"type": "array", "items": True})["items"]["anyOf"]
    assert kept_whole({"type": ["string", "null"], "enum": ["a", 1, None]}) == {"enum": ["a", None]}
    joined = kept_whole({"allOf": [{"properties": {"a": {}}, "required": ["a"]}], "properties": {"b": {}}})
    assert (joined["properties"].keys(), joined["required"]) == ({"a", "b"}, ["a"])


@in_one_loop
@pytest.mark.parametrize("seed", range(3))
async def test_a_range_and_a_length_are_kept(tiny: LlamaCppBackend, seed: int) -> None:
    assert json.loads(
        await answer(tiny, schema({"type": "integer", "minimum": -3, "maximum": 12}), seed=seed)
    ) in range(-3, 13)
    listed = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}
    assert 2 <= len(json.loads(await answer(tiny, schema(listed), seed=seed))) <= 4


TAGGED = {"type": "object", "required": ["kind"]}
KEPT: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "texts that JSON escapes": ({"enum": ['a "b" \\ \n ü', "c\\\\d"]}, lambda v: v in ('a "b" \\ \n ü', "c\\\\d")),
    "a property that has the name of a definition": (
        {
            "properties": {"a": {"const": 1}, "b": {"$ref": "#/$defs/a"}},
            "required": ["a", "b"],
            "$defs": {"a": {"const": 2}},
        },
        lambda v: v == {"a": 1, "b": 2},
    ),
    "properties that have the names of rules": (
        {
            "properties": {"char": {"const": 1}, "": {"const": 2}, "b": {"type": "string", "maxLength": 2}},
            "required": ["char", "", "b"],
        },
        lambda v: (v["char"], v[""], type(v["b"])) == (1, 2, str),
    ),
    "no second value of a property": (
        {"properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": {"type": "string"}},
        lambda v: v == {"a": 1},
    ),
    "a list of its own kind": (
        {
            "$defs": {
                "n": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 1}]}
            },
            "$ref": "#/$defs/n",
        },
        lambda v: v is None or isinstance(v, list),
    ),
    "one of two kinds that a tag tells apart": (
        {"oneOf": [TAGGED | {"properties": {"kind": {"const": n}}} for n in ("a", "b")]},
        lambda v: v["kind"] in ("a", "b"),
    ),
    "a reference with signs": ({"$defs": {"a/b c": {"const": 3}}, "$ref": "#/$defs/a~1b%20c"}, lambda v: v == 3),
    "signs that a pattern escapes": (
        {"type": "string", "pattern": "^(?:[0-9.\\-]{3})\\.\\^[\\^a]$"},
        lambda v: re.fullmatch(r"[0-9.\-]{3}\.\^[\^a]", v) is not None,
    ),
    "days that there are": ({"type": "string", "format": "date"}, lambda v: bool(date.fromisoformat(v))),
    "numbers that computers hold": ({"type": "number"}, math.isfinite),
}


@in_one_loop
@pytest.mark.parametrize("name", KEPT)
async def test_what_the_converter_would_have_misread_is_kept(tiny: LlamaCppBackend, name: str) -> None:
    described, fits = KEPT[name]
    for seed in range(6):
        assert fits(json.loads(await answer(tiny, schema(described), seed=seed)))


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
