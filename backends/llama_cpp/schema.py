"""What a JSON Schema must be so that a grammar keeps all of it, found out before one is made.

`llama_cpp.llama_grammar` makes the grammar, and leaves out without a word what it does not know: a minimum, a `not`,
whatever stands beside a `$ref`. An answer would then break its schema, so that such schemas are refused, by the
keyword. Where a schema can be written in words that it knows, it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...core.failure import AttemptError, FailureKind

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
_FORMATS = re.compile(r"uuid[1-5]?|date|time|date-time")
_REPEATED_AGAIN = re.compile(r"\{[0-9, ]+\}[^(]*\)+[{*+]")
_SET = re.compile(r"\[(?:\\.|[^\]\\])*\]")
_ESCAPED = ('"', "\\", *map(chr, range(32)))
_BEYOND_SETS = re.compile(r'["\x00-\x1f]|\\[\\"a-zA-Z0-9]')
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def kept_whole(schema: Schema) -> Schema:
    """The schema in words that a grammar keeps. Raises INVALID_REQUEST, with the keyword, where there are none."""
    return _Reader(schema).read(schema, 0)


class _Reader:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._count = 0

    def read(self, schema: object, depth: int) -> Schema:
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_SCHEMAS:
            raise _refused(f"is nested deeper than {_DEEPEST} or has more than {_MOST_SCHEMAS:,} parts; simplify it")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise _refused("has a part that is no schema, or one (`false`) that no value fits")
        schema = _as_enum(_unwrapped(schema))
        schema = {key: value for key, value in schema.items() if key not in _SAY_NOTHING}
        kept = _kept(schema)
        if lost := sorted(schema.keys() - kept - _HOLD_OTHERS):
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
                case "properties" | "$defs" | "definitions", dict():
                    read[keyword] = {name: self.read(part, depth) for name, part in value.items()}
                case "anyOf" | "oneOf" | "allOf" | "prefixItems", list():
                    read[keyword] = [self.read(part, depth) for part in value]
                case "items", list():
                    read[keyword] = [self.read(part, depth) for part in value]
                case "items", _:
                    read[keyword] = self.read(value, depth)
                case "additionalProperties", dict():
                    read[keyword] = self.read(value, depth)
        if read.get("items") == {}:
            # Anything: the converter takes this for nothing.
            read["items"] = {"anyOf": [{"type": each} for each in _TYPES]}
        return read

    def _check(self, schema: Schema) -> None:
        """Raise where the keywords that are kept contradict one another, or ask for too much."""
        types = schema.get("type", [])
        if not set(types if isinstance(types, list) else [types]) <= _TYPES.keys():
            raise _refused("has a `type` that is none of JSON's")
        for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
            low, high = schema.get(least, 0), schema.get(most)
            if not all(isinstance(bound, int) and 0 <= bound <= _MOST_REPETITIONS for bound in (low, high or 0)):
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
        if "allOf" in schema and not all(self._is_plain_object(part) for part in schema["allOf"]):
            raise _refused("joins by `allOf` what are not all objects with `properties`; write it as one schema")
        if "pattern" in schema:
            _check_pattern(schema["pattern"])

    def _is_plain_object(self, part: object) -> bool:
        if isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
            part = self._resolved(reference)
        return isinstance(part, dict) and "properties" in part and part.get("type", "object") == "object"

    def _resolved(self, reference: str) -> object:
        found: object = self._root
        for step in reference.split("/")[1:]:
            found = found.get(step) if isinstance(found, dict) else None
        return found


def _kept(schema: Schema) -> frozenset[str]:
    """The keywords that the converter heeds, by which of its cases the schema is."""
    type_ = schema.get("type")
    may_be = {type_} if isinstance(type_, str) else {*_TYPES} if type_ is None else set()
    if "$ref" in schema:
        return frozenset({"$ref"})
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return frozenset({union})
    if isinstance(type_, list):
        return frozenset({"type", "format"})
    for values in ("const", "enum"):
        if values in schema:
            return frozenset({values, "type"})
    if "object" in may_be:
        if "properties" in schema or schema.get("additionalProperties", True) is not True:
            return frozenset({"type", "properties", "required", "additionalProperties"})
        if "allOf" in schema:
            return frozenset({"type", "allOf"})
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
            case [dict() as part] if schema.keys() - {keyword} <= _SAY_NOTHING | _HOLD_OTHERS:
                return {**{key: value for key, value in schema.items() if key != keyword}, **part}
    return schema


def _as_enum(schema: Schema) -> Schema:
    """A range of whole numbers as a list of them; values that are listed without those of another type."""
    if (type_ := schema.get("type")) == "integer" and any(bound in schema for bound in _BOUNDS):
        low, high = (
            _bound(schema, *names)
            for names in (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
        )
        if low is None or high is None or high - low >= _MOST_NUMBERS:
            raise _refused(f"bounds a number, which a grammar keeps only for up to {_MOST_NUMBERS:,} whole numbers")
        rest = {key: value for key, value in schema.items() if key not in _BOUNDS}
        schema = {**rest, "enum": list(range(low, high + 1))}
    if isinstance(type_, str) and isinstance(values := schema.get("enum"), list):
        schema = {**schema, "enum": [value for value in values if _is_a(value, type_)]}
    if schema.get("enum", ...) == []:
        raise _refused("lists no value that fits it")
    if "const" in schema and isinstance(type_, str) and not _is_a(schema["const"], type_):
        raise _refused("has a `const` of another `type`, which no value fits")
    return schema


def _bound(schema: Schema, inclusive: str, exclusive: str, step: int) -> int | None:
    """The tighter of two bounds; None where there is none, or one is no whole number (a boolean in JSON Schema 4)."""
    said = [(schema[keyword], beyond) for keyword, beyond in ((inclusive, 0), (exclusive, step)) if keyword in schema]
    if not all(type(bound) is int for bound, _ in said):
        return None
    return (max if step > 0 else min)((bound + beyond for bound, beyond in said), default=None)


def _is_a(value: object, type_: str) -> bool:
    if isinstance(value, bool):
        return type_ == "boolean"
    return isinstance(value, _TYPES.get(type_, ())) or (
        type_ == "integer" and isinstance(value, float) and value.is_integer()
    )


def _check_pattern(pattern: object) -> None:
    try:
        re.compile(str(pattern))
    except (re.error, RecursionError, OverflowError):
        raise _refused("has a `pattern` that is no regular expression") from None
    sets = _SET.findall(str(pattern))
    if any(re.match(each, sign) for each in sets for sign in _ESCAPED) or _BEYOND_SETS.search(
        _SET.sub("", str(pattern))
    ):
        # They would stand in the answer as they are, which is then no JSON.
        raise _refused("has a `pattern` with characters that JSON escapes, or a class; write sets such as [0-9]")
    if _REPEATED_AGAIN.search(str(pattern)):
        # Where all of it may be empty, llama.cpp would look at each of the countless ways to be so.
        raise _refused("has a `pattern` that repeats what it repeats; simplify it")
    if any(int(number) > _MOST_REPETITIONS for number in re.findall(r"[0-9]{3,9}", str(pattern))):
        raise _refused(f"has a `pattern` that repeats more than {_MOST_REPETITIONS:,} times")


def _refused(what: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, f"response_format's schema {what}")
