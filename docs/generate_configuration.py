"""Writes the tables of configuration.md anew, from the types that the configuration is read by.

``python docs/generate_configuration.py`` rewrites the file; a test compares it, so that the reference cannot go stale.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.models import ModelSettings
from edgewise.backends.onnx import OnnxSettings
from edgewise.backends.openai import OpenaiSettings
from edgewise.core.duration import parse_duration
from edgewise.core.settings import ByteSize, FilePath, Fraction, ModelName, Seconds, Secret
from edgewise.policies.settings import PolicySettings
from edgewise.router.config.backends import CommonSettings
from edgewise.router.decision_log import DecisionLogSettings
from edgewise.router.serving import ServeSettings

PAGE = Path(__file__).parent / "configuration.md"
ROOTS: tuple[type[Any], ...] = (
    ModelSettings,
    CommonSettings,
    LlamaCppSettings,
    OnnxSettings,
    GrpcSettings,
    OpenaiSettings,
    PolicySettings,
    ServeSettings,
    DecisionLogSettings,
)

_BLOCK = re.compile(r"<!-- keys of (\w+) -->\n.*?<!-- end of keys -->", re.DOTALL)
_MEBIBYTE = 1024 * 1024
_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    Seconds: "duration",
    ByteSize: "size",
    Fraction: "0 to 1, or a percentage",
    FilePath: "path",
    ModelName: "a model's name",
    Secret: "`${NAME}`",
}


def rewritten(page: str) -> str:
    """The page with its tables as they should be. Raises ``ValueError`` where a type has no table, or one too many."""
    known = {kind.__name__: kind for root in ROOTS for kind in _reached(root)}
    shown = _BLOCK.findall(page)
    if sorted(shown) != sorted(known):
        raise ValueError(f"tables for {sorted(set(shown) ^ set(known))} are missing, not known, or there twice")
    return _BLOCK.sub(lambda match: f"<!-- keys of {match[1]} -->\n{_table(known[match[1]])}<!-- end of keys -->", page)


def _reached(kind: Any) -> Iterator[type[Any]]:
    """The dataclasses that a type is made of, itself included."""
    if is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in get_type_hints(kind, include_extras=True).values():
            yield from _reached(hint)
    for each in get_args(kind):
        yield from _reached(each)


def _table(kind: type[Any]) -> str:
    hints = get_type_hints(kind, include_extras=True)
    rows = ["| key | written as | when missing | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(kind):
        value, meaning = get_args(hints[field.name])
        key = field.name.removesuffix("_")
        rows.append(f"| `{key}` | {_written(value)} | {_missing(field)} | {meaning} |")
    return "\n".join(rows) + "\n"


def _written(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member}`" for member in kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return f"[keys](#{_anchor(kind)})"
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each not in (type(None), ...)]
    if origin is Annotated:
        return _written(inner[0])
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_written, inner))
    if origin is tuple:
        return f"list: {_written(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"names, each with: {_written(inner[1])}"
    raise ValueError(f"no words for {kind}")


def _missing(field: Field[Any]) -> str:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    if default is MISSING:
        return "**must be there**"
    if default is None or default in ((), "") or is_dataclass(default) or isinstance(default, Mapping):
        return "–"
    if isinstance(default, bool):
        return f"`{default}`".lower()
    if isinstance(default, tuple):
        return "`[" + ", ".join(map(str, default)) + "]`"
    if isinstance(default, float) and "Seconds" in str(field.type):
        return f"`{_duration(default)}`"
    if isinstance(default, int) and "ByteSize" in str(field.type) and default % _MEBIBYTE == 0:
        return f"`{default // _MEBIBYTE}MiB`"
    return f"`{default}`".replace("\n", "\\n")


def _duration(seconds: float) -> str:
    """The shortest text that is read as this duration."""
    texts = (f"{seconds / parse_duration(f'1{unit}'):g}{unit}" for unit in ("d", "h", "m", "s", "ms"))
    return next(text for text in texts if "." not in text and parse_duration(text) == seconds)


def _anchor(kind: type[Any]) -> str:
    return kind.__name__.lower()


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
