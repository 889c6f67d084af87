"""The configuration as JSON Schema, so that editors complete it and underline what is wrong."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ...backends.models import ModelSettings
from ...backends.registry import find_kind, kind_names
from ...core.settings import ByteSize, FilePath, Fraction, ModelName, Seconds, Secret
from ...policies.settings import PolicySettings
from ..decision_log import DecisionLogSettings
from ..serving.settings import ServeSettings
from .backends import CommonSettings

JsonSchema = dict[str, Any]

_PLAIN: Mapping[Any, JsonSchema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Seconds: {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|\.[0-9]+) *(us|ms|s|m|h|d)$"},
    ByteSize: {"type": "string", "pattern": "^[0-9.]+ ?([kK]?B|[MGT]B|[KMGT]iB)$"},
    Fraction: {
        "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "^[0-9.]+ ?%$"}]
    },
    FilePath: {"type": "string"},
    ModelName: {"type": "string"},
    Secret: {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"},
}


def json_schema() -> JsonSchema:
    """The schema of a whole file, with the kinds of backends that are installed."""
    kinds = {name: find_kind(name) for name in kind_names()}
    sections = {
        "version": {"const": 1},
        "models": {"type": "object", "additionalProperties": _of(ModelSettings)},
        "backends": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"anyOf": [_backend(name, kind.settings) for name, kind in kinds.items()]},
        },
        "policy": _of(PolicySettings),
        "serve": _of(ServeSettings),
        "decision_log": _of(DecisionLogSettings),
        "state_file": _of(FilePath),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgewise configuration",
        "type": "object",
        "properties": sections,
        "required": ["version", "backends"],
        "additionalProperties": False,
    }


def _backend(name: str, settings: type[Any]) -> JsonSchema:
    common, own = _of(CommonSettings), _of(settings)
    return {
        "title": name,
        "type": "object",
        "properties": {**common["properties"], **own["properties"], "kind": {"const": name}},
        "required": sorted({"kind", *common.get("required", ()), *own.get("required", ())}),
        "additionalProperties": False,
    }


def _of(kind: Any) -> JsonSchema:
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [str(member) for member in kind]}
    if is_dataclass(kind) and isinstance(kind, type):
        return _table(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**_of(inner[0]), "description": inner[1]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if each is type(None) else _of(each) for each in inner]}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0])}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(inner[1])}
    raise ValueError(f"no schema for {kind}")


def _table(kind: type[Any]) -> JsonSchema:
    hints = get_type_hints(kind, include_extras=True)
    required = [
        field.name.removesuffix("_")
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    ]
    made: JsonSchema = {
        "type": "object",
        "properties": {field.name.removesuffix("_"): _of(hints[field.name]) for field in fields(kind)},
        "additionalProperties": False,
    }
    return {**made, "required": required} if required else made
