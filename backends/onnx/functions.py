"""How large an ONNX model is once its functions are written out, found before native code does so.

A file of a kilobyte may hold functions that call one another ten times each, ten deep. ONNX Runtime replaces every call
by the function's nodes while it loads, and comes to no end.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from .protobuf import fields, model_bytes
from .unavailable import unavailable

MOST_NODES = 50_000
"""What functions may be written out to. ONNX Runtime 1.32 takes some 7 s for so many, and four times that for twice."""

_GRAPH, _FUNCTION = 7, 25
"""The fields of a model that lead to nodes."""

_LEADS: dict[str, dict[int, str]] = {
    "Graph": {1: "Node"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {6: "Graph", 11: "Graph"},
}
"""The messages of ``onnx.proto``, and by which fields each leads to nodes."""

_Id = tuple[bytes, bytes, bytes]
_Numbers = tuple[int, int, int]
_Extent = tuple[int, int]

_FUNCTION_ID: _Numbers = (10, 1, 13)
_NODE_ID: _Numbers = (7, 4, 8)
"""Domain, name and overload: a node calls the function that has its own."""


def require_bounded(model: str, path: Path) -> None:
    """Raise MODEL_UNAVAILABLE for a model whose functions are written out to too many nodes, or call themselves."""
    with model_bytes(model, path) as data:
        nodes = _nodes_of_functions(data)
    if nodes is None:
        raise unavailable(model, "its functions call themselves; get it again")
    if nodes > MOST_NODES:
        raise unavailable(
            model,
            f"its functions are written out to more than {MOST_NODES:,} operators; export it without functions, or get "
            "it from somebody you trust",
        )


def _nodes_of_functions(data: mmap.mmap) -> int | None:
    """How many nodes the calls of functions become, counted to a little above `MOST_NODES`; None for those without end.

    A model that has no functions is not read.
    """
    graphs: list[_Extent] = []
    functions: dict[_Id, list[_Extent]] = {}
    for number, at, end in fields(data, 0, len(data)):
        if number == _GRAPH:
            graphs.append((at, end))
        elif number == _FUNCTION:
            functions.setdefault(_id(data, at, end, _FUNCTION_ID), []).append((at, end))
    if not functions:
        return 0
    calls = {name: Counter(_called(data, "Function", extents, functions)) for name, extents in functions.items()}
    leaves_first = TopologicalSorter({name: [each for each in called if each] for name, called in calls.items()})
    sizes: dict[_Id | None, int] = {None: 1}
    try:
        for name in leaves_first.static_order():
            sizes[name] = _written_out(calls[name], sizes)
    except CycleError:
        return None
    of_graphs = Counter(_called(data, "Graph", graphs, functions))
    del of_graphs[None]
    return _written_out(of_graphs, sizes)


def _written_out(calls: Mapping[_Id | None, int], sizes: Mapping[_Id | None, int]) -> int:
    return min(MOST_NODES + 1, sum(count * sizes[name] for name, count in calls.items()))


def _called(data: mmap.mmap, kind: str, extents: Sequence[_Extent], functions: Container[_Id]) -> Iterator[_Id | None]:
    """For every node, of inner graphs too, the function that it calls; None for an operator."""
    unread = [(kind, at, end) for at, end in extents]
    while unread:
        kind, start, end = unread.pop()
        if kind == "Node":
            called = _id(data, start, end, _NODE_ID)
            yield called if called in functions else None
        leads = _LEADS[kind]
        unread += [(leads[number], at, after) for number, at, after in fields(data, start, end) if number in leads]


def _id(data: mmap.mmap, start: int, end: int, numbers: _Numbers) -> _Id:
    said = {number: data[at:after] for number, at, after in fields(data, start, end) if number in numbers}
    domain, name, overload = (said.get(number, b"") for number in numbers)
    return (b"" if domain == b"ai.onnx" else domain, name, overload)
