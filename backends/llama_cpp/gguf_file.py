"""Why llama.cpp does not load a GGUF file, as far as the file's own header tells. Runs in the worker.

By the format's specification (``gguf.md`` in ggml's documents); llama.cpp itself says one thing of all that it refuses.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NoReturn

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""How many bytes a value of each type has that has always as many."""
_MOST_PARTS = 2_000_000
_SHOWN = 60

_AGAIN = "fetch the file again"


class _Odd(Exception):
    """Why the file is no whole GGUF file."""


def why_refused(path: Path) -> str:
    """What is wrong with a model's file that llama.cpp refused, and what to do, within one sentence."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            architecture = _Header(data).architecture()
    except _Odd as odd:
        return str(odd)
    except FileNotFoundError:
        return f"its file is gone; {_AGAIN}"
    except ValueError:  # there is nothing to map
        return f"its file is empty; {_AGAIN}"
    except OSError:
        return "its file cannot be read; let this user read it"
    shown = architecture.decode("utf-8", "replace")
    return (
        f"this llama.cpp does not load its architecture {shown!r}, or its weights are damaged; upgrade "
        f"llama-cpp-python, {_AGAIN}, or take another model"
    )


class _Header:
    """The header of a GGUF file, read once from its beginning to its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._parts = 0

    def architecture(self) -> bytes:
        """The model's architecture. Raises `_Odd` for what is no GGUF file, names none, or is cut short."""
        if self._data[: len(_MAGIC)] != _MAGIC[: len(self._data)]:
            raise _Odd("its file is no GGUF file; take the GGUF file of this model")
        self._skip(len(_MAGIC))
        if (version := self._number("<I")) not in _VERSIONS:
            raise _Odd(f"its file is of version {version} of GGUF, and llama.cpp reads 2 and 3; take a newer file")
        tensors, entries = self._number("<Q"), self._number("<Q")
        architecture = b""
        for _ in range(self._counted(entries)):
            key, type_ = self._string(), self._number("<I")
            if key == b"general.architecture" and type_ == _STRING:
                architecture = self._string()
            else:
                self._skip_value(type_)
        if not architecture:
            raise _Odd("its file names no architecture, so that it is no model; take another file of this model")
        begins = 0
        for _ in range(self._counted(tensors)):
            self._string()
            self._skip(8 * self._number("<I") + 4)
            begins = max(begins, self._number("<Q"))
        self._skip(begins + 1)
        return architecture

    def _skip_value(self, type_: int) -> None:
        if type_ == _STRING:
            self._string()
        elif type_ == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _BYTES:
                self._skip(_BYTES[inner] * count)
            elif inner == _STRING:
                for _ in range(self._counted(count)):
                    self._string()
            else:
                self._damaged()
        elif type_ in _BYTES:
            self._skip(_BYTES[type_])
        else:
            self._damaged()

    def _counted(self, count: int) -> int:
        """So many parts, which are to be read one by one."""
        self._parts += count
        if self._parts > _MOST_PARTS:
            self._damaged()
        return count

    def _string(self) -> bytes:
        """A text's first bytes; it may be as long as the file."""
        length, at = self._number("<Q"), self._at
        self._skip(length)
        return self._data[at : min(self._at, at + _SHOWN)]

    def _number(self, format_: str) -> int:
        at = self._at
        self._skip(struct.calcsize(format_))
        (number,) = struct.unpack_from(format_, self._data, at)
        return int(number)

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise _Odd(f"its file is cut short or damaged; {_AGAIN}")

    def _damaged(self) -> NoReturn:
        raise _Odd(f"its file is damaged; {_AGAIN}")
