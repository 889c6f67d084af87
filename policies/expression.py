"""The checked form of a CEL condition as a tree: which facts it reads, and which literals it compares them with.

The library hands out its tree only as a serialised ``cel.expr.CheckedExpr``; the few fields needed are read here off
the protobuf wire, so that no second copy of that schema is registered in anybody's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_VARINT, _BYTES = 0, 2


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
    (checked,) = _parts(serialized, 2)
    (expr,) = _parts(checked, 4)
    (source_info,) = _parts(checked, 5)
    return _node(expr, _positions(source_info))


def _node(expr: bytes, positions: dict[int, int]) -> Node:
    offset = positions[_number(expr, 2)]
    what, body = next(((tag, value) for tag, value in _fields(expr) if isinstance(value, bytes)), (0, b""))
    match what:
        case 3:
            return _constant(body, offset)
        case 4:
            name = _text(body, 1)
            # The library points at the last dot of a dotted name.
            return Node("name", name, offset - len(name.rpartition(".")[0]))
        case 5:
            return Node("select", _text(body, 2), offset, _nodes(_parts(body, 1), positions))
        case 6:
            return Node("call", _text(body, 2), offset, _nodes(_parts(body, 1, 3), positions))
        case 7:
            return Node("list", "", offset, _nodes(_parts(body, 1), positions))
        case 9:  # a comprehension: all its parts are expressions but the two names
            return Node("other", "", offset, _nodes(_parts(body, 2, 4, 5, 6, 7), positions))
        case 8:  # a map or message: entries, each with a key and a value that are expressions
            entries = [part for entry in _parts(body, 2) for part in _parts(entry, 3, 4)]
            return Node("other", "", offset, _nodes(entries, positions))
    return Node("other", "", offset)


def _nodes(parts: Iterable[bytes], positions: dict[int, int]) -> tuple[Node, ...]:
    return tuple(_node(part, positions) for part in parts)


def _constant(body: bytes, offset: int) -> Node:
    match next(_fields(body), (0, 0)):
        case 6, bytes(text):
            return Node("text", text.decode(), offset)
        case 3, int(number):
            return Node("number", str(number - (1 << 64) if number >> 63 else number), offset)
    return Node("other", "", offset)


def _positions(source_info: bytes) -> dict[int, int]:
    return {_number(entry, 1): _number(entry, 2) for entry in _parts(source_info, 4)}


def _parts(message: bytes, *wanted: int) -> list[bytes]:
    """The fields with these tags that are messages or texts."""
    return [value for tag, value in _fields(message) if tag in wanted and isinstance(value, bytes)]


def _text(message: bytes, wanted: int) -> str:
    return b"".join(_parts(message, wanted)).decode()


def _number(message: bytes, wanted: int) -> int:
    return next((value for tag, value in _fields(message) if tag == wanted and isinstance(value, int)), 0)


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
            at += 8  # a double: the message has no other number of fixed length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
