"""Which operators a model uses that ONNX Runtime has none of. Runs in the worker."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from .nodes import FUNCTION, GRAPH, function_id, nodes
from .protobuf import fields, model_bytes

_SHOWN = 60
_MOST = 3


def foreign_domains(model: str, path: Path, known: Container[str]) -> list[str]:
    """Some domains of a model's operators that are none of the ``known`` and not of its own functions, as to be shown.

    Raises MODEL_UNAVAILABLE where the file cannot be read.
    """
    with model_bytes(model, path) as data:
        parts = [(number, (at, end)) for number, at, end in fields(data, 0, len(data))]
        functions = [extent for number, extent in parts if number == FUNCTION]
        own = {function_id(data, extent) for extent in functions}
        graphs = [extent for number, extent in parts if number == GRAPH]
        used = {*nodes(data, "Graph", graphs), *nodes(data, "Function", functions)}
    domains = {domain[:_SHOWN].decode("utf-8", "replace") for domain, *_ in used - own}
    return sorted(domain for domain in domains if domain not in known)[:_MOST]
