"""What a JSON Schema must be so that a grammar keeps all of it, found out before one is made.

`llama_cpp.llama_grammar` makes the grammar, and leaves out without a word what it does not know: a minimum, a `not`,
whatever stands beside a `$ref`. An answer would then break its schema, so that such schemas are refused, by the
keyword. Where a schema can be written in words that it knows, it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from ...core.failure import AttemptError, FailureKind
from .alternatives import exclude_one_another, is_a, is_type
from .pattern import kept_pattern

Schema = dict[str, Any]

_DEEPEST = 64
_MOST_SCHEMAS = 4096
_MOST_REPETITIONS = 1000
_MOST_NUMBERS = 1000

_SAY_NOTHING = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$anchor"),
    }
)
"""Keywords that forbid no value."""
_HOLD_OTHERS = frozenset({"$defs", "definitions"})
"""Keywords for what is referred to."""
_UNIONS = ("oneOf", "anyOf")
_FORMATS = re.compile(r"uuid[1-5]?|date|time|date-time")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_ANYTHING = ("string", "integer", "number", "boolean", "null", "array", "object")


def kept_whole(schema: Schema) -> Schema:
    """The schema in words that a grammar keeps. Raises INVALID_REQUEST, with the keyword, where there are none."""
    return _Reader(schema).kept()


class _Reader:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._count = 0
        self._names: dict[str, str] = {}
        self._unread: list[str] = []

    def kept(self) -> Schema:
        """The root, and all that is referred to under names of its own."""
        root = self._read(self._root, 0)
        named: Schema = {}
        while self._unread:
            reference = self._unread.pop()
            named[self._names[reference]] = self._read(self._target(reference), 0)
        if not named:
            return root
        _require_an_end(root, named)
        return {"$defs": named, **root}

    def _read(self, schema: object, depth: int) -> Schema:
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_SCHEMAS:
            raise _refused(f"is nested deeper than {_DEEPEST} or has more than {_MOST_SCHEMAS:,} parts; simplify it")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise _refused("has a part that is no schema, or one (`false`) that no value fits")
        schema = _unwrapped({key: value for key, value in schema.items() if key not in _SAY_NOTHING | _HOLD_OTHERS})
        _check_shapes(schema)
        schema = _as_enum(self._joined(schema))
        kept = _kept(schema)
        if lost := sorted(schema.keys() - kept):
            beside = sorted(kept & schema.keys())
            where = f" beside `{beside[0]}`" if beside else ""
            raise _refused(f"has `{lost[0]}`{where}, which a grammar cannot keep; leave it out")
        self._check(schema)
        return self._with_parts(schema, depth + 1)

    def _with_parts(self, schema: Schema, depth: int) -> Schema:
        """The same with all schemas in it read."""
        read = dict(schema)
        for keyword, value in schema.items():
            match keyword, value:
                case "$ref", _:
                    read[keyword] = f"#/$defs/{self._named(value)}"
                case "properties", _:
                    read[keyword] = {name: self._read(part, depth) for name, part in value.items()}
                case ("anyOf" | "oneOf" | "prefixItems", _) | ("items", list()):
                    read[keyword] = [self._read(part, depth) for part in value]
                case ("items", _) | ("additionalProperties", dict()):
                    read[keyword] = self._read(value, depth)
                case "pattern", _:
                    read[keyword] = kept_pattern(value)
        if read.get("items") == {}:
            # Anything: the converter takes this for nothing.
            read["items"] = {"anyOf": [{"type": each} for each in _ANYTHING]}
        if read.get("properties"):
            # Others might repeat one of these with another value; and without others it is whole.
            read["additionalProperties"] = False
        return read

    def _check(self, schema: Schema) -> None:
        """Raise where the keywords that are kept contradict one another, or ask for too much."""
        for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
            low, high = schema.get(least, 0), schema.get(most)
            if not (_is_length(low) and (high is None or _is_length(high))):
                raise _refused(f"has a `{least}` or `{most}` that is no number up to {_MOST_REPETITIONS:,}")
            if high is not None and high < low:
                raise _refused(f"has a `{least}` above its `{most}`, which no value fits")
        listed = schema.get("prefixItems", schema.get("items"))
        if isinstance(listed, list) and not schema.get("minItems", 0) <= len(listed) <= schema.get(
            "maxItems", len(listed)
        ):
            raise _refused(f"lists {len(listed)} items, which are not as many as it asks for")
        if not set(schema.get("required", ())) <= schema.get("properties", {}).keys():
            raise _refused("requires a property that is not among its `properties`; describe it there")
        if "oneOf" in schema and not exclude_one_another(schema["oneOf"], self._resolved):
            raise _refused("has a `oneOf` of which a value may fit two; tell them apart by a `const`, or write `anyOf`")

    def _joined(self, schema: Schema) -> Schema:
        """An object that is described in several places as described in one."""
        if "allOf" not in schema:
            return schema
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        joined: Schema = {"type": "object", "properties": {}, "required": []}
        for part in [*schema["allOf"], rest]:
            described = self._resolved(part)
            if not _is_plain_object(described):
                raise _refused("joins by `allOf` what are not all objects with `properties`; write it as one schema")
            _check_shapes(described)
            properties = described.get("properties", {})
            if properties.keys() & joined["properties"].keys():
                raise _refused("joins by `allOf` objects that describe the same property; write it as one schema")
            joined["properties"] |= properties
            joined["required"] += described.get("required", [])
        return joined

    def _named(self, reference: str) -> str:
        if reference not in self._names:
            self._names[reference] = f"ref{len(self._names)}"
            self._unread.append(reference)
        return self._names[reference]

    def _resolved(self, schema: object) -> Any:  # JSON
        """The schema that a reference alone names; any other as it is."""
        match schema:
            case {"$ref": str(reference)}:
                return self._target(reference)
        return schema

    def _target(self, reference: str) -> object:
        found: object = self._root
        for step in reference.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise _refused("refers by `$ref` to a part that it does not have")
            found = found[key]
        return found


def _check_shapes(schema: Schema) -> None:
    """Raise where a keyword's value is of a kind that JSON Schema does not know there."""
    for keyword in ("allOf", "anyOf", "oneOf", "enum"):
        if keyword in schema and not (isinstance(schema[keyword], list) and schema[keyword]):
            raise _refused(f"has `{keyword}` that is no list, or an empty one, which no value fits")
    required = schema.get("required", [])
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        raise _refused("has `required` that is no list of names")
    if not isinstance(schema.get("properties", {}), dict):
        raise _refused("has `properties` that are no table of schemas")
    if not isinstance(schema.get("$ref", ""), str):
        raise _refused("has a `$ref` that is no text")
    types = schema.get("type", "null")
    if not (types and all(map(is_type, types if isinstance(types, list) else [types]))):
        raise _refused("has a `type` that is none of JSON's")
    try:
        json.dumps([schema.get("enum"), schema.get("const")], allow_nan=False)
    except ValueError:
        raise _refused("asks for a value that is no JSON, such as NaN") from None


def _is_length(bound: object) -> bool:
    return type(bound) is int and 0 <= bound <= _MOST_REPETITIONS  # a boolean is an int to Python, and none to JSON


def _is_plain_object(part: object) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() <= {"type", "properties", "required", "additionalProperties"} | _SAY_NOTHING | _HOLD_OTHERS
        and part.get("type", "object") == "object"
        and part.get("additionalProperties", True) is True
    )


def _kept(schema: Schema) -> frozenset[str]:
    """The keywords that the converter heeds, by which of its cases the schema is."""
    type_ = schema.get("type")
    may_be = {type_} if isinstance(type_, str) else {*_ANYTHING} if type_ is None else set()
    if "$ref" in schema:
        return frozenset({"$ref"})
    for union in _UNIONS:
        if union in schema:
            return frozenset({union})
    if isinstance(type_, list):
        return frozenset({"type", "format"})
    for values in ("const", "enum"):
        if values in schema:
            return frozenset({values, "type"})
    if "object" in may_be and ("properties" in schema or schema.get("additionalProperties", True) is not True):
        return frozenset({"type", "properties", "required", "additionalProperties"})
    if "array" in may_be:
        for items in ("items", "prefixItems"):
            if items in schema:
                return frozenset({"type", items, "minItems", "maxItems"})
    if "string" in may_be:
        if "pattern" in schema:
            return frozenset({"type", "pattern", "format"})
        if type_ == "string" and ("minLength" in schema or "maxLength" in schema):
            known = _FORMATS.fullmatch(str(schema.get("format", "")))
            return frozenset({"type", "format"} if known else {"type", "format", "minLength", "maxLength"})
    return frozenset({"type", "format", "additionalProperties"})


def _unwrapped(schema: Schema) -> Schema:
    """Without an `allOf` or the like of one part, which says what the part says."""
    for keyword in ("allOf", "anyOf", "oneOf"):
        match schema.get(keyword):
            case [dict() as part] if len(schema) == 1:
                return {key: value for key, value in part.items() if key not in _SAY_NOTHING | _HOLD_OTHERS}
    return schema


def _as_enum(schema: Schema) -> Schema:
    """A range of whole numbers as a list of them; values that are listed without those of another type."""
    type_ = schema.get("type")
    if type_ == "integer" and any(bound in schema for bound in _BOUNDS):
        low, high = (
            _bound(schema, *names)
            for names in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
        )
        if low is None or high is None or high - low >= _MOST_NUMBERS:
            raise _refused(f"bounds a number, which a grammar keeps only for up to {_MOST_NUMBERS:,} whole numbers")
        rest = {key: value for key, value in schema.items() if key not in _BOUNDS}
        schema = {**rest, "enum": list(range(low, high + 1))}
    if type_ is None or schema.keys().isdisjoint(("enum", "const")):
        if schema.get("enum", ...) == []:
            raise _refused("lists no value that fits it")
        return schema
    types = type_ if isinstance(type_, list) else [type_]
    rest = {key: value for key, value in schema.items() if key != "type"}
    if "const" in schema and not _is_one(schema["const"], types):
        raise _refused("has a `const` of another `type`, which no value fits")
    if "enum" in schema:
        rest["enum"] = [value for value in schema["enum"] if _is_one(value, types)]
        if not rest["enum"]:
            raise _refused("lists no value that fits it")
    return rest


def _is_one(value: object, types: Sequence[str]) -> bool:
    return any(is_a(value, type_) for type_ in types)


def _bound(schema: Schema, inclusive: str, exclusive: str, step: int) -> int | None:
    """The tighter of two bounds; None where there is none, or one is no whole number (a boolean in JSON Schema 4)."""
    said = [(schema[keyword], beyond) for keyword, beyond in ((inclusive, 0), (exclusive, step)) if keyword in schema]
    if not all(type(bound) is int for bound, _ in said):
        return None
    return (max if step > 0 else min)((bound + beyond for bound, beyond in said), default=None)


def _require_an_end(root: Schema, named: Schema) -> None:
    """Raise where a part can only be said without end, because it holds another of its kind."""
    ending: set[str] = set()
    while more := {name for name in named.keys() - ending if _ends(named[name], ending)}:
        ending |= more
    if ending != named.keys() or not _ends(root, ending):
        raise _refused("has a part that always holds another of its kind, so that no value fits")


def _ends(schema: Schema, ending: set[str]) -> bool:
    """Whether there is a value without end in sight, given the names of those that have one."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2] in ending
    for union in _UNIONS:
        if union in schema:
            return any(_ends(part, ending) for part in schema[union])
    needed = [schema["properties"][name] for name in schema.get("required", ())]
    items = schema.get("prefixItems", schema.get("items"))
    if isinstance(items, list):
        needed += items
    elif schema.get("minItems") and items is not None:
        needed.append(items)
    return all(_ends(part, ending) for part in needed)


def _refused(what: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, f"response_format's schema {what}")
