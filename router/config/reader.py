"""A tree of texts becomes frozen dataclasses, driven by their fields; all mistakes at once."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path as FileSystemPath
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from ...core.problem import Path
from ...core.settings import FilePath, ModelName, Secret
from ...core.suggestion import one_of
from .scalars import PLAIN, Unfit, read_enum, read_secret, read_text
from .tree import Complaint, Listing, Mark, Node, Scalar, Table


class Invalid:
    """What reading returns where a complaint was made instead."""


INVALID: Final = Invalid()
_NULLS = ("", "null", "~")


class Reader:
    """Reads values of declared types out of a tree, and collects what is wrong with it.

    ``base`` is the folder that relative paths count from; ``models`` are the names that a `ModelName` may be.
    """

    def __init__(self, base: FileSystemPath, environment: Mapping[str, str]) -> None:
        self.complaints: list[Complaint] = []
        self.models: Sequence[str] = ()
        self._base = base
        self._environment = environment

    def complain(self, sentence: str, mend: str, mark: Mark, path: Path) -> Invalid:
        """Note a mistake."""
        self.complaints.append(Complaint(sentence, mend, mark, path))
        return INVALID

    def sections(self, node: Node, path: Path, kinds: Sequence[type[Any]], mark: Mark) -> list[Any]:
        """One mapping read as several dataclasses that share its keys. `INVALID` stands for each that cannot be had."""
        if isinstance(node, Scalar) and node.empty:
            node = Table({}, mark)
        if not isinstance(node, Table):
            return [self._expected("keys with values", "write `key: value`, one a line", node, path)] * len(kinds)
        keys = {_key(field): field for kind in kinds for field in fields(kind)}
        for name, (key_mark, _) in node.entries.items():
            if name not in keys:
                self.complain(f"there is no key {name!r} here", one_of(name, keys), key_mark, (*path, name))
        return [self._dataclass(kind, node, path, mark) for kind in kinds]

    def value(self, kind: Any, node: Node, path: Path, mark: Mark) -> Any:
        """The node as a value of this type. ``mark`` is its key's, for what is missing inside it."""
        origin = get_origin(kind)
        if origin is Annotated:
            return self.value(get_args(kind)[0], node, path, mark)
        if origin in (Union, types.UnionType):
            return self._union(get_args(kind), node, path, mark)
        if origin is tuple:
            return self._items(get_args(kind)[0], node, path)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(get_args(kind)[1], node, path, mark)
        if is_dataclass(kind) and isinstance(kind, type):
            return self.sections(node, path, [kind], mark)[0]
        return self._scalar(kind, node, path)

    def _dataclass(self, kind: type[Any], node: Table, path: Path, mark: Mark) -> Any:
        values: dict[str, Any] = {}
        broken = False
        for field, hint in _typed_fields(kind):
            key = _key(field)
            required = field.default is MISSING and field.default_factory is MISSING
            if key not in node.entries:
                if required:
                    broken = True
                    self.complain(f"{key!r} is missing: {_meaning(hint)}", f"add `{key}: …`", mark, path)
                continue
            key_mark, inner = node.entries[key]
            value = self.value(hint, inner, (*path, key), key_mark)
            if value is not INVALID:
                values[field.name] = value
            elif required or not _can_be_defaulted(hint):
                broken = True
            # Else the default stands in, so that judging goes on and finds the other mistakes.
        return INVALID if broken else kind(**values)

    def _union(self, options: Sequence[Any], node: Node, path: Path, mark: Mark) -> Any:
        optional = type(None) in options
        if optional and isinstance(node, Scalar) and node.plain and node.text in _NULLS:
            return None
        options = [each for each in options if each is not type(None)]
        words = [word for each in options if get_origin(each) is Literal for word in get_args(each)]
        if words and isinstance(node, Scalar):
            node.shown = True
            if node.text in words:
                return node.text
            mend = f"write {' or '.join(words)}, or keys with values below it"
            return self.complain(f"{node.text!r} is not possible here", mend, node.mark, path)
        return self.value(next(each for each in options if get_origin(each) is not Literal), node, path, mark)

    def _items(self, kind: Any, node: Node, path: Path) -> Any:
        if not isinstance(node, Listing):
            if isinstance(node, Scalar) and not _holds_secret(kind):
                node.shown = True
                return self._expected("a list", f"write [{node.text}]", node, path)
            return self._expected("a list", "write […]", node, path)
        values = [self.value(kind, item, (*path, at), item.mark) for at, item in enumerate(node.items)]
        return INVALID if INVALID in values else tuple(values)

    def _mapping(self, kind: Any, node: Node, path: Path, mark: Mark) -> Any:
        if isinstance(node, Scalar) and node.empty:
            node = Table({}, mark)
        if not isinstance(node, Table):
            return self._expected("names with values", "write `name: …`, one a line", node, path)
        values = {
            name: self.value(kind, inner, (*path, name), key_mark) for name, (key_mark, inner) in node.entries.items()
        }
        return INVALID if INVALID in values.values() else MappingProxyType(values)

    def _scalar(self, kind: Any, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            return self._expected("a single value", "write `key: value`", node, path)
        if kind is not Secret:
            node.shown = True
        if node.empty:
            return self.complain("the value is missing", "write it after the colon", node.mark, path)
        try:
            return self._read(kind, node.text)
        except Unfit as unfit:
            return self.complain(unfit.sentence, unfit.mend, node.mark, path)

    def _read(self, kind: Any, text: str) -> Any:
        if kind is Secret:
            return Secret(read_secret(text, self._environment))
        if kind is FilePath:
            return FilePath(str(self._base / FileSystemPath(read_text(text)).expanduser()))
        if kind is ModelName:
            if text not in self.models:
                raise Unfit(f"there is no model {text!r}", one_of(text, self.models))
            return ModelName(text)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return read_enum(kind, text)
        return PLAIN[kind](text)

    def _expected(self, what: str, mend: str, node: Node, path: Path) -> Invalid:
        return self.complain(f"here should be {what}", mend, node.mark, path)


def _key(field: Field[Any]) -> str:
    """A field's key: a trailing underscore only keeps clear of Python's own words."""
    return field.name.removesuffix("_")


def _typed_fields(kind: type[Any]) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _meaning(hint: Any) -> str:
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else "it has no default"


def _can_be_defaulted(hint: Any) -> bool:
    """Whether a default in place of a wrong value misleads nobody who judges the rest: it holds no names."""
    if get_origin(hint) in (Annotated, Union, types.UnionType, tuple):
        return all(_can_be_defaulted(each) for each in get_args(hint) if each is not ... and not isinstance(each, str))
    return get_origin(hint) is None and not is_dataclass(hint) and hint is not str


def _holds_secret(kind: Any) -> bool:
    return kind is Secret or any(_holds_secret(each) for each in get_args(kind))
