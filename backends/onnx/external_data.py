"""Where an ONNX model's weights lie, read from its file before any native code opens it. Runs in the worker.

A model may keep them in other files, and a file from outside may name any: one elsewhere, one that nobody has proven,
or (ONNX Runtime has a name for that) an address in memory. Only the fields of the file that lead to such names are
looked at, by their numbers in ``onnx.proto``; all else is stepped over unread, so that gigabytes take milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from .unavailable import unavailable

_DAMAGED = "its file is no ONNX model, or is cut short; get it again"
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
    if path.suffix == ".ort":  # ONNX Runtime's own format, which has no external data
        return []
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
    found = set()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, end in _entries(data):
                if (location := _location(data, start, end)) is not None:
                    found.add(location)
    except _Damaged as error:
        raise unavailable(model, str(error)) from None
    except (OSError, ValueError):  # gone, or empty
        raise unavailable(model, _DAMAGED) from None
    return found


class _Damaged(Exception):
    """The bytes are not what they should be."""


def _entries(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """The extent of every entry about external data."""
    unread = [("Model", 0, len(data))]
    seen = 0
    while unread:
        kind, start, end = unread.pop()
        leads = _LEADS[kind]
        for number, at, after in _fields(data, start, end):
            seen += 1
            if seen > _MOST_FIELDS:
                raise _Damaged(f"its file has more than {_MOST_FIELDS:,} parts; no model needs so many")
            lead = leads.get(number)
            if lead == "Entry":
                yield at, after
            elif lead is not None:
                unread.append((lead, at, after))


def _location(data: mmap.mmap, start: int, end: int) -> str | None:
    """What an entry says, where it is about the location."""
    said = {number: data[at:after] for number, at, after in _fields(data, start, end)}
    if said.get(_KEY) != b"location":
        return None
    try:
        return said.get(_VALUE, b"").decode()
    except UnicodeDecodeError:
        raise _Damaged(_DAMAGED) from None


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field that holds bytes, and where these begin and end."""
    while at < end:
        tag, at = _varint(data, at, end)
        if not 8 <= tag < 1 << 32:
            # ONNX Runtime would cut off what is above 32 bits, and read another field than this one.
            raise _Damaged(_DAMAGED)
        match tag & 7:
            case 0:
                _, at = _varint(data, at, end)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, start = _varint(data, at, end)
                at = start + length
                if at <= end:
                    yield tag >> 3, start, at
            case _:
                raise _Damaged(_DAMAGED)
        if at > end:
            raise _Damaged(_DAMAGED)


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Damaged(_DAMAGED)
