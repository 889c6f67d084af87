"""From a request's response format to a grammar in GBNF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llama_cpp.llama_grammar import SchemaConverter

from ...core.failure import AttemptError, FailureKind
from ..chat.json_schema import said_by
from ..process.bounds import Bounds
from .gbnf import require_readable
from .schema import kept_whole

_ANY, _UNESCAPED = r'[^"\\]', r'[^"\\\x7F\x00-\x1F\uD800-\uDFFF\U00110000-\U003FFFFF]'
_OR_ESCAPED = r' | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
_EXPONENT = r'("." decimal-part)? ([eE] [-+]? {})? space'
_DAY, _MONTH = r'( "0" [1-9] | [1-2] [0-9] | "3" [0-1] )', r'( "0" [1-9] | "1" [0-2] )'
_FOURTH = '( [02468] [48] | [2468] "0" | [13579] [26] )'
_DAYS = (
    '( "0" [13578] | "10" | "12" ) "-" ( "0" [1-9] | [12] [0-9] | "3" [01] )',
    '( "0" [469] | "11" ) "-" ( "0" [1-9] | [12] [0-9] | "30" )',
    '"02-" ( "0" [1-9] | "1" [0-9] | "2" [0-8] )',
)
_DATE = (
    f'[1-9] [0-9] [0-9] [0-9] "-" ( {" | ".join(_DAYS)} )'
    f' | ( [1-9] [0-9] {_FOURTH} | ( [2468] [048] | [13579] [26] ) "00" ) "-02-29"'
)
_CORRECTED = {
    f"{rule}\n": f"{corrected}\n"
    for rule, corrected in (
        (f"char ::= {_ANY}{_OR_ESCAPED}", f"char ::= {_UNESCAPED}{_OR_ESCAPED}"),
        (r"dot ::= [^\x0A\x0D]", f"dot ::= {_UNESCAPED}"),
        (f'date ::= [0-9] [0-9] [0-9] [0-9] "-" {_MONTH} "-" {_DAY}', f"date ::= {_DATE}"),
        *(
            (
                f'{name} ::= ("-"? integral-part) {_EXPONENT.format("integral-part")}',
                f'{name} ::= ("-"? integral-part) {_EXPONENT.format("[0-9] [0-9]?")}',
            )
            for name in ("number", "root")
        ),
    )
}
"""Rules of the converter by which an answer may hold what is no text in JSON, no day, or no number of a computer's."""
_BOUNDS = Bounds(seconds=2.0, memory=256 << 20)


def grammar_of(response_format: Mapping[str, Any]) -> bytes:
    """The grammar that an answer must follow. Raises INVALID_REQUEST for a format or schema that has none."""
    return require_readable(_grammar_of(response_format))


def _grammar_of(response_format: Mapping[str, Any]) -> str:
    match response_format.get("type"):
        case "json_object":
            return _from_schema({"type": "object"})
        case "json_schema":
            return _from_schema(response_format.get("schema"))
        case "grammar" if isinstance(grammar := response_format.get("grammar"), str):
            return grammar
    sentence = "response_format is none of json_object, json_schema (with `schema`) and grammar (with `grammar`)"
    raise AttemptError(FailureKind.INVALID_REQUEST, sentence)


def _from_schema(schema: object) -> str:
    if not isinstance(schema, dict):
        raise AttemptError(FailureKind.INVALID_REQUEST, "response_format's schema is not a JSON object")
    # The converter would fetch others; only an assertion, which Python can be told to leave out, keeps it from that.
    if any(isinstance(said, str) and not said.startswith("#/") for said in said_by("$ref", schema)):
        sentence = "response_format's schema refers to another document; only references that begin with #/ are read"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    try:
        known = kept_whole(schema)
        made = _BOUNDS.run(lambda: _converted(known))
    except AttemptError:
        raise
    except Exception:  # noqa: BLE001  # a walk through an odd schema, theirs or ours, runs into whatever it holds
        sentence = "response_format's schema has no grammar; simplify it"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence) from None
    return "".join(_CORRECTED.get(rule, rule) for rule in made.splitlines(keepends=True))


class _Converter(SchemaConverter):
    """llama.cpp's own, with texts written so that a grammar says them as they are."""

    def _format_literal(self, literal: str) -> str:
        said = json.dumps(json.loads(literal), ensure_ascii=False)
        escaped = said.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'


def _converted(schema: dict[str, Any]) -> str:
    make: Any = _Converter  # llama_cpp has no types for it
    converter = make(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    # Under a name, so that the rules for its properties have names that begin with it and are nobody else's; and beside
    # no reference, next to which the converter reads no definitions.
    answer = {keyword: value for keyword, value in schema.items() if keyword != "$defs"}
    named = {**schema.get("$defs", {}), "answer": answer}
    whole = json.loads(json.dumps({"$defs": named, "anyOf": [{"$ref": "#/$defs/answer"}]}))
    converter.visit(converter.resolve_refs(whole, "schema"), "")
    return str(converter.format_grammar())
