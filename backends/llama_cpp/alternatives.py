"""Whether a value can fit two schemas at once, which `oneOf` forbids and a grammar cannot see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

Schema = dict[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def is_type(name: object) -> bool:
    """Whether JSON has a type of this name."""
    return isinstance(name, str) and name in _TYPES


def is_a(value: object, type_: str) -> bool:
    """Whether a value is of one of JSON's types."""
    if isinstance(value, bool):
        return type_ == "boolean"
    return isinstance(value, _TYPES[type_]) or (type_ == "integer" and isinstance(value, float) and value.is_integer())


def exclude_one_another(schemas: Sequence[object], resolved: Callable[[object], object]) -> bool:
    """Whether it can be seen that no value fits two of them. ``resolved`` finds what a reference names."""
    return all(_apart(resolved(one), resolved(other), resolved) for one, other in combinations(schemas, 2))


def _apart(one: object, other: object, resolved: Callable[[object], object]) -> bool:
    """By types, by the values listed, or by a property that both require, such as a tag."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return False
    types, others = _types(one), _types(other)
    if not any(a == b or {a, b} == {"integer", "number"} for a in types for b in others):
        return True
    values, other_values = _values(one), _values(other)
    if values is not None and other_values is not None:
        return not any(value == each for value in values for each in other_values)
    if not types == others == {"object"}:
        return False
    required = [set(each.get("required", ())) & each.get("properties", {}).keys() for each in (one, other)]
    return any(
        _apart(resolved(one["properties"][name]), resolved(other["properties"][name]), resolved)
        for name in required[0] & required[1]
    )


def _types(schema: Schema) -> set[str]:
    if (values := _values(schema)) is not None:
        return {name for name in _TYPES if any(is_a(value, name) for value in values)}
    match schema.get("type"):
        case str(name):
            return {name}
        case list(names):
            return set(names)
    return {*_TYPES}


def _values(schema: Schema) -> list[object] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")
