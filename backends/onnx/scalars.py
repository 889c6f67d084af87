"""Which inputs and outputs of a model are scalars: of these ONNX Runtime says what it says of any shape at all.

Runs in the worker.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from .nodes import GRAPH
from .protobuf import fields, model_bytes

_PORTS = (11, 12)
_NAME = 1
_SHAPE = (2, 1, 2)
"""The fields of ``onnx.proto`` that lead from an input or output to its shape: its type, that a tensor, the shape."""


def scalars(model: str, path: Path) -> frozenset[str]:
    """The names of inputs and outputs whose shape is there and has no axes. Raises MODEL_UNAVAILABLE.

    ONNX Runtime's own format does not say it like this: for such a file there are none.
    """
    if path.suffix == ".ort":
        return frozenset()
    with model_bytes(model, path) as data:
        return frozenset(_scalars(data))


def _scalars(data: mmap.mmap) -> Iterator[str]:
    graphs = [(at, end) for number, at, end in fields(data, 0, len(data)) if number == GRAPH]
    ports = [(at, end) for graph in graphs for number, at, end in fields(data, *graph) if number in _PORTS]
    for port in ports:
        shapes = [port]
        for wanted in _SHAPE:
            shapes = [(at, end) for part in shapes for number, at, end in fields(data, *part) if number == wanted]
        if shapes and all(at == end for at, end in shapes):
            yield from (data[at:end].decode("utf-8", "replace") for n, at, end in fields(data, *port) if n == _NAME)
