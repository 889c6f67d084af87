"""Where an ONNX model's weights lie, read from its file before any native code opens it. Runs in the worker.

A model may keep them in other files, and a file from outside may name any: one elsewhere, one that nobody has proven,
or (ONNX Runtime has a name for that) an address in memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from .protobuf import Damaged, fields, model_bytes
from .unavailable import unavailable

_MOST_FIELDS = 20_000_000

_LEADS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
"""The messages of ``onnx.proto``, and by which fields each leads to the names of external data."""

_KEY, _VALUE = 1, 2


def proven_data(model: str, path: Path, proven: Collection[str] | None) -> list[Path]:
    """The files that a model keeps data in, besides its own.

    Raises MODEL_UNAVAILABLE where one lies outside of the model's folder, is not there, or is not among the ``proven``
    (None: nothing is asked for).
    """
    files = []
    for location in sorted(_locations(model, path)):
        parts = PurePosixPath(location).parts
        if not parts or location.startswith("/") or ".." in parts or "\\" in location or "\0" in location:
            raise unavailable(model, "it takes data from outside of its own folder; get it from somebody you trust")
        name = "/".join(parts)
        require_proven(model, name, proven)
        if not (path.parent / name).is_file():
            raise unavailable(model, f"it reads {name!r}, which is not beside it; get all files of the model")
        files.append(path.parent / name)
    return files


def require_proven(model: str, name: str, proven: Collection[str] | None) -> None:
    """Raise MODEL_UNAVAILABLE for a file beside a model that the model's sha256 does not prove."""
    if proven is not None and name not in proven:
        why = (
            f"it reads {name!r} beside it, which its sha256 does not prove; let its source be the folder, with a / at "
            "the end, and its sha256 that of all files, as `edgewise models add` prints it"
        )
        raise unavailable(model, why)


def _locations(model: str, path: Path) -> set[str]:
    """All names of external data in a model's file, used or not."""
    with model_bytes(model, path) as data:
        locations = (_location(data, start, end) for start, end in _entries(data))
        return {location for location in locations if location is not None}


def _entries(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """The extent of every entry about external data."""
    unread = [("Model", 0, len(data))]
    seen = 0
    while unread:
        kind, start, end = unread.pop()
        leads = _LEADS[kind]
        for number, at, after in fields(data, start, end):
            seen += 1
            if seen > _MOST_FIELDS:
                raise Damaged(f"its file has more than {_MOST_FIELDS:,} parts; no model needs so many")
            lead = leads.get(number)
            if lead == "Entry":
                yield at, after
            elif lead is not None:
                unread.append((lead, at, after))


def _location(data: mmap.mmap, start: int, end: int) -> str | None:
    """What an entry says, where it is about the location."""
    said = {number: data[at:after] for number, at, after in fields(data, start, end)}
    if said.get(_KEY) != b"location":
        return None
    try:
        return said.get(_VALUE, b"").decode()
    except UnicodeDecodeError:
        raise Damaged from None
