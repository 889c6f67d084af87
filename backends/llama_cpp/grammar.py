"""From a request's response format to a grammar in GBNF."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llama_cpp.llama_grammar import json_schema_to_gbnf

from ...core.failure import AttemptError, FailureKind
from ..process.bounds import Bounds
from .gbnf import require_readable
from .schema import kept_whole

_ANY, _UNESCAPED = r'[^"\\]', r'[^"\\\x7F\x00-\x1F]'
_OR_ESCAPED = r' | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
_CORRECTED = {
    f"{rule}\n": f"{corrected}\n"
    for rule, corrected in (
        (f"char ::= {_ANY}{_OR_ESCAPED}", f"char ::= {_UNESCAPED}{_OR_ESCAPED}"),
        (r"dot ::= [^\x0A\x0D]", f"dot ::= {_UNESCAPED}"),
    )
}
"""Rules of the converter by which a text may hold what JSON does not allow in one."""
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
    if any(not reference.startswith("#/") for reference in _references(schema)):
        sentence = "response_format's schema refers to another document; only references that begin with #/ are read"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    try:
        known = kept_whole(schema)
        made = _BOUNDS.run(lambda: str(json_schema_to_gbnf(json.dumps(known))))
    except AttemptError:
        raise
    except Exception:  # noqa: BLE001  # a walk through an odd schema, theirs or ours, runs into whatever it holds
        sentence = "response_format's schema has no grammar; simplify it"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence) from None
    return "".join(_CORRECTED.get(rule, rule) for rule in made.splitlines(keepends=True))


def _references(node: object) -> Iterator[str]:
    """What the keys `$ref` anywhere in a schema say."""
    unread = [node]
    while unread:
        match unread.pop():
            case dict() as table:
                reference = table.get("$ref")
                if isinstance(reference, str):
                    yield reference
                unread += table.values()
            case list() as items:
                unread += items
