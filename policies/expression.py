"""The checked form of a CEL condition as a tree: which facts it reads, and which literals it compares them with.

The library hands out its tree only as a serialised ``cel.expr.CheckedExpr``; the few fields needed are read here off
the protobuf wire, so that no second copy of that schema is registered in anybody's process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """One node. ``kind`` is ``name``, ``text``, ``number`` (an int), ``select``, ``call``, ``list`` or ``other``.

    ``value`` is the variable's name, the string's text, the number's digits, the selected field or the function.
    ``offset`` counts characters into the condition.
    """

    kind: str
    value: str
    offset: int
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def read_tree(serialized: bytes) -> Node:
    """The tree of what ``Expression.serialize()`` returned."""
    checked = _first(serialized, 2)
    return _node(_first(checked, 4), _positions(_first(checked, 5)))


def _node(expr: bytes, positions: dict[int, int]) -> Node:
    number = 0
    body, what = b"", 0
    for tag, value in _fields(expr):
        if tag == 2 and isinstance(value, int):
            number = value
        elif isinstance(value, bytes):
            what, body = tag, value
    offset = positions.get(number, 0)
    match what:
        case 3:
            return _constant(body, offset)
        case 4:
            name = _first(body, 1).decode()
            # The library points at the last dot of a dotted name.
            return Node("name", name, max(0, offset - len(name.rpartition(".")[0])))
        case 5:
            return Node("select", _first(body, 2).decode(), offset, (_node(_first(body, 1), positions),))
        case 6:
            inner = [value for tag, value in _fields(body) if tag in (1, 3) and isinstance(value, bytes)]
            return Node("call", _first(body, 2).decode(), offset, tuple(_node(each, positions) for each in inner))
        case 7:
            elements = [value for tag, value in _fields(body) if tag == 1 and isinstance(value, bytes)]
            return Node("list", "", offset, tuple(_node(each, positions) for each in elements))
        case 9:  # a comprehension: all its parts are expressions but the two names
            parts = [value for tag, value in _fields(body) if tag in (2, 4, 5, 6, 7) and isinstance(value, bytes)]
            return Node("other", "", offset, tuple(_node(each, positions) for each in parts))
        case 8:  # a map or message: entries, each with a key and a value that are expressions
            entries = [value for tag, value in _fields(body) if tag == 2 and isinstance(value, bytes)]
            pairs = [
                part for entry in entries for tag, part in _fields(entry) if tag in (3, 4) and isinstance(part, bytes)
            ]
            return Node("other", "", offset, tuple(_node(each, positions) for each in pairs))
    return Node("other", "", offset)


def _constant(body: bytes, offset: int) -> Node:
    for tag, value in _fields(body):
        if tag == 6 and isinstance(value, bytes):
            return Node("text", value.decode(), offset)
        if tag == 3 and isinstance(value, int):
            return Node("number", str(value - (1 << 64) if value >> 63 else value), offset)
    return Node("other", "", offset)


def _positions(source_info: bytes) -> dict[int, int]:
    positions: dict[int, int] = {}
    for tag, entry in _fields(source_info):
        if tag == 4 and isinstance(entry, bytes):
            pair = {key: value for key, value in _fields(entry) if isinstance(value, int)}
            positions[pair.get(1, 0)] = pair.get(2, 0)
    return positions


def _first(message: bytes, wanted: int) -> bytes:
    return next((value for tag, value in _fields(message) if tag == wanted and isinstance(value, bytes)), b"")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield key >> 3, number
        elif kind == _BYTES:
            length, at = _varint(message, at)
            yield key >> 3, message[at : at + length]
            at += length
        else:
            at += 8 if kind == _FIXED64 else 4


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
