"""An ONNX model's file by its protobuf fields, before any native code opens it. Runs in the worker.

Only what is asked for is read, by its number in ``onnx.proto``; all else is stepped over, so that gigabytes take
milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .unavailable import unavailable

_DAMAGED = "its file is no ONNX model, or is cut short; get it again"


class Damaged(Exception):
    """The bytes are not what they should be; the text may say what is wrong with them."""


@contextmanager
def model_bytes(model: str, path: Path) -> Iterator[mmap.mmap]:
    """A model's file. Raises MODEL_UNAVAILABLE where it cannot be read, also for `Damaged` bytes."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except Damaged as error:
        raise unavailable(model, str(error) or _DAMAGED) from None
    except FileNotFoundError:
        raise unavailable(model, "its file is gone") from None
    except (OSError, ValueError):  # unreadable, or empty
        raise unavailable(model, _DAMAGED) from None


def fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field that holds bytes, and where these begin and end. Raises `Damaged`."""
    while at < end:
        tag, at = _varint(data, at, end)
        if not 8 <= tag < 1 << 32:
            # ONNX Runtime would cut off what is above 32 bits, and read another field than this one.
            raise Damaged
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
                raise Damaged
        if at > end:
            raise Damaged


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Damaged
