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

from .nodes import FUNCTION, GRAPH, Extent, Id, function_id, nodes
from .protobuf import fields, model_bytes
from .unavailable import unavailable

MOST_NODES = 50_000
"""What functions may be written out to. ONNX Runtime 1.32 takes some 7 s for so many, and four times that for twice."""


def require_bounded(model: str, path: Path) -> None:
    """Raise MODEL_UNAVAILABLE for a model whose functions are written out to too many nodes, or call themselves."""
    with model_bytes(model, path) as data:
        count = _nodes_of_functions(data)
    if count is None:
        raise unavailable(model, "its functions call themselves; get it again")
    if count > MOST_NODES:
        raise unavailable(
            model,
            f"its functions are written out to more than {MOST_NODES:,} operators; export it without functions, or get "
            "it from somebody you trust",
        )


def _nodes_of_functions(data: mmap.mmap) -> int | None:
    """How many nodes the calls of functions become, counted to a little above `MOST_NODES`; None for those without end.

    A model that has no functions is not read.
    """
    graphs: list[Extent] = []
    functions: dict[Id, list[Extent]] = {}
    for number, at, end in fields(data, 0, len(data)):
        if number == GRAPH:
            graphs.append((at, end))
        elif number == FUNCTION:
            functions.setdefault(function_id(data, (at, end)), []).append((at, end))
    if not functions:
        return 0
    calls = {name: Counter(_called(data, "Function", extents, functions)) for name, extents in functions.items()}
    leaves_first = TopologicalSorter({name: [each for each in called if each] for name, called in calls.items()})
    sizes: dict[Id | None, int] = {None: 1}
    try:
        for name in leaves_first.static_order():
            sizes[name] = _written_out(calls[name], sizes)
    except CycleError:
        return None
    of_graphs = Counter(_called(data, "Graph", graphs, functions))
    del of_graphs[None]
    return _written_out(of_graphs, sizes)


def _written_out(calls: Mapping[Id | None, int], sizes: Mapping[Id | None, int]) -> int:
    return min(MOST_NODES + 1, sum(count * sizes[name] for name, count in calls.items()))


def _called(data: mmap.mmap, kind: str, extents: Sequence[Extent], functions: Container[Id]) -> Iterator[Id | None]:
    """For every node the function that it calls; None for an operator."""
    return (called if called in functions else None for called in nodes(data, kind, extents))
