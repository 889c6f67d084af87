"""A tree of texts becomes frozen dataclasses, driven by their fields; all mistakes at once.

Reading never stops: where a value cannot be read a complaint is noted and something stands in for it, so that the rest
can be judged. What is then found at the place of a complaint, or was concluded from there, says nothing.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path as FileSystemPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ...core.problem import Path
from ...core.settings import ByteSize, FilePath, Fraction, ModelName, Seconds, Secret
from ...core.suggestion import closest, one_of
from .scalars import PLAIN, Unfit, read_enum, read_secret, read_text
from .tree import Complaint, Listing, Mark, Node, Scalar, Table

_NULLS = ("", "null", "~")
_STAND_INS: Mapping[Any, Any] = {
    str: "",
    bool: False,
    int: 0,
    float: 0.0,
    Seconds: Seconds(0.0),
    ByteSize: ByteSize(0),
    Fraction: Fraction(0.0),
    FilePath: FilePath(""),
    ModelName: ModelName(""),
    Secret: Secret(""),
}


class Reader:
    """Reads values of declared types out of a tree, and collects what is wrong with it.

    ``base`` is the folder that relative paths count from; ``models`` are the names that a `ModelName` may be, ``None``
    if that is not known.
    """

    def __init__(self, base: FileSystemPath, environment: Mapping[str, str]) -> None:
        self.complaints: list[Complaint] = []
        self.models: Sequence[str] | None = ()
        self._base = base
        self._environment = environment

    def complain(self, sentence: str, mend: str, mark: Mark, path: Path) -> None:
        """Note a mistake."""
        self.complaints.append(Complaint(sentence, mend, mark, path))

    def sections(
        self,
        node: Node,
        path: Path,
        kinds: Sequence[type[Any]],
        mark: Mark,
        *,
        closed: bool = True,
        whole: bool = True,
    ) -> list[Any]:
        """One mapping read as several dataclasses that share its keys.

        Unless ``closed``, other keys may be there too; unless ``whole``, keys may be missing that are needed.
        """
        if isinstance(node, Scalar) and node.empty:
            node = Table({}, mark)
        if not isinstance(node, Table):
            self._expected("keys with values", "write `key: value`, one a line", node, path)
            return [stand_in(kind) for kind in kinds]
        keys = {_key(field): field for kind in kinds for field in fields(kind)}
        for name, (key_mark, _) in node.entries.items():
            if closed and name not in keys:
                # At the key that was meant, so that nobody misses that one too.
                meant = closest(name, keys)
                at = name if meant is None or meant in node.entries else meant
                self.complain(f"there is no key {name!r} here", one_of(name, keys), key_mark, (*path, at))
        return [self._dataclass(kind, node, path, mark, whole) for kind in kinds]

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

    def _dataclass(self, kind: type[Any], node: Table, path: Path, mark: Mark, whole: bool) -> Any:
        values: dict[str, Any] = {}
        told = {complaint.path for complaint in self.complaints}
        for field, hint in _typed_fields(kind):
            key = _key(field)
            inner_path = (*path, key)
            before = len(self.complaints)
            if key in node.entries:
                key_mark, inner = node.entries[key]
                value = self.value(hint, inner, inner_path, key_mark)
            elif not _is_required(field):
                continue
            else:
                if whole and inner_path not in told:
                    self.complain(f"{key!r} is missing: {_meaning(hint)}", f"add `{key}: …`", mark, inner_path)
                value = stand_in(hint)
            unread = any(complaint.path == inner_path for complaint in self.complaints[before:])
            if _is_required(field) or not unread:
                values[field.name] = value
        return kind(**values)

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
            self.complain(f"{node.text!r} is not possible here", mend, node.mark, path)
            return None if optional else words[0]
        return self.value(next(each for each in options if get_origin(each) is not Literal), node, path, mark)

    def _items(self, kind: Any, node: Node, path: Path) -> tuple[Any, ...]:
        if isinstance(node, Listing):
            return tuple(self.value(kind, item, (*path, at), item.mark) for at, item in enumerate(node.items))
        mend = "write […]"
        if isinstance(node, Scalar) and not _holds_secret(kind):
            node.shown = True
            mend = f"write [{node.text}]"
        self._expected("a list", mend, node, path)
        return ()

    def _mapping(self, kind: Any, node: Node, path: Path, mark: Mark) -> Any:
        if isinstance(node, Scalar) and node.empty:
            node = Table({}, mark)
        if not isinstance(node, Table):
            self._expected("names with values", "write `name: …`, one a line", node, path)
            return MappingProxyType({})
        return MappingProxyType(
            {name: self.value(kind, inner, (*path, name), key_mark) for name, (key_mark, inner) in node.entries.items()}
        )

    def _scalar(self, kind: Any, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            self._expected("a single value", "write `key: value`", node, path)
            return stand_in(kind)
        if kind is not Secret:
            node.shown = True
        if node.empty:
            self.complain("the value is missing", "write it after the colon", node.mark, path)
            return stand_in(kind)
        try:
            return self._read(kind, node.text)
        except Unfit as unfit:
            self.complain(unfit.sentence, unfit.mend, node.mark, path)
            return stand_in(kind)

    def _read(self, kind: Any, text: str) -> Any:
        if kind is Secret:
            return Secret(read_secret(text, self._environment))
        if kind is FilePath:
            return FilePath(str(self._base / _without_tilde(read_text(text))))
        if kind is ModelName:
            if self.models is not None and text not in self.models:
                raise Unfit(f"there is no model {text!r}", one_of(text, self.models))
            return ModelName(text)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return read_enum(kind, text)
        return PLAIN[kind](text)

    def _expected(self, what: str, mend: str, node: Node, path: Path) -> None:
        self.complain(f"here should be {what}", mend, node.mark, path)


def _without_tilde(path: str) -> FileSystemPath:
    try:
        return FileSystemPath(path).expanduser()
    except RuntimeError:
        raise Unfit(f"the home folder in {path!r} is unknown", "write the path in full") from None


def _key(field: Field[Any]) -> str:
    """A field's key: a trailing underscore only keeps clear of Python's own words."""
    return field.name.removesuffix("_")


def _typed_fields(kind: type[Any]) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _meaning(hint: Any) -> str:
    return str(get_args(hint)[1]) if get_origin(hint) is Annotated else "it has no default"


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def stand_in(kind: Any) -> Any:
    """Some value of a type, to go on with where the true one could not be read."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return stand_in(inner[0])
    if origin in (Union, types.UnionType):
        return None if type(None) in inner else stand_in(inner[0])
    if origin is Literal:
        return inner[0]
    if origin is tuple:
        return ()
    if origin is not None and issubclass(origin, Mapping):
        return MappingProxyType({})
    if is_dataclass(kind) and isinstance(kind, type):
        required = [(field.name, hint) for field, hint in _typed_fields(kind) if _is_required(field)]
        return kind(**{name: stand_in(hint) for name, hint in required})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    return _STAND_INS[kind]


def _holds_secret(kind: Any) -> bool:
    return kind is Secret or any(_holds_secret(each) for each in get_args(kind))
