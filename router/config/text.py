"""A file's bytes become text: of bounded size, UTF-8, and nothing in it that cannot be seen."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from ...core.errors import ConfigurationError
from ...core.problem import Position, Problem

LARGEST = 512 * 1024
"""Bytes that a configuration may have."""


def read_bytes(path: str | os.PathLike[str], mend: str) -> bytes:
    """The file's bytes, `LARGEST` and one more at most. Raises `ConfigurationError` where it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(LARGEST + 1)
    except OSError as error:
        raise unreadable(str(path), f"cannot be read: {error.strerror}", mend) from None
    except ValueError:  # a path with a NUL in it
        raise unreadable(str(path), "is no path", mend) from None


def decode(raw: bytes, file: str) -> str:
    """The text. Raises `ConfigurationError` that shows where it is none."""
    if len(raw) > LARGEST:
        raise unreadable(file, f"is larger than {LARGEST // 1024} KiB", "name the right file")
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        position = _after(file, before)
        problem = Problem("here is a byte that is not UTF-8", "save the file as UTF-8", position=position)
        raise ConfigurationError([problem]) from None
    bad = next((at for at, each in enumerate(text) if not _visible(each)), None)
    if bad is not None:
        sentence = f"here is the invisible character U+{ord(text[bad]):04X}"
        raise ConfigurationError([Problem(sentence, "remove it", position=_after(file, text[:bad]))])
    return text


def _visible(character: str) -> bool:
    # Marks that reorder or hide text would let a policy read differently from what it says.
    return character.isprintable() or character in "\n\r\t" or unicodedata.category(character) == "Zs"


def _after(file: str, text: str) -> Position:
    line = text.count("\n") + 1
    return Position(file, line, len(text) - (text.rfind("\n") + 1) + 1)


def unreadable(file: str, sentence: str, mend: str) -> ConfigurationError:
    """The error of a file that cannot be used at all."""
    return ConfigurationError([Problem(f"the configuration {sentence}", mend, position=Position(file, 1, 1))])
