"""All nodes in an ONNX model's file, of inner graphs too. Runs in the worker."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence

from .protobuf import fields

GRAPH, FUNCTION = 7, 25
"""The fields of a model that lead to nodes."""

_LEADS: dict[str, dict[int, str]] = {
    "Graph": {1: "Node"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {6: "Graph", 11: "Graph"},
}
"""The messages of ``onnx.proto``, and by which fields each leads to nodes."""

Id = tuple[bytes, bytes, bytes]
"""Domain, name and overload: a node calls the function that has its own."""
Extent = tuple[int, int]

_Numbers = tuple[int, int, int]
_FUNCTION_ID: _Numbers = (10, 1, 13)
_NODE_ID: _Numbers = (7, 4, 8)


def function_id(data: mmap.mmap, extent: Extent) -> Id:
    """What a function is called by. Raises `Damaged`, as all here."""
    return _id(data, extent, _FUNCTION_ID)


def nodes(data: mmap.mmap, kind: str, extents: Sequence[Extent]) -> Iterator[Id]:
    """What every node in these graphs or functions calls, which ``kind`` tells: ``Graph`` or ``Function``."""
    unread = [(kind, extent) for extent in extents]
    while unread:
        kind, extent = unread.pop()
        if kind == "Node":
            yield _id(data, extent, _NODE_ID)
        leads = _LEADS[kind]
        unread += [(leads[number], (at, after)) for number, at, after in fields(data, *extent) if number in leads]


def _id(data: mmap.mmap, extent: Extent, numbers: _Numbers) -> Id:
    said = {number: data[at:after] for number, at, after in fields(data, *extent) if number in numbers}
    domain, name, overload = (said.get(number, b"") for number in numbers)
    return (b"" if domain == b"ai.onnx" else domain, name, overload)
