"""Texts as people write them become values of the types in ``core/settings.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from ...core.duration import parse_duration
from ...core.settings import ByteSize, Fraction, Seconds
from ...core.suggestion import one_of


class Unfit(ValueError):
    """A text is no value of the type. ``mend`` says what would be one. Neither quotes a secret."""

    def __init__(self, sentence: str, mend: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.mend = mend


_INT = re.compile(r"[+-]?\d{1,3}(_\d{3})+|[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", re.ASCII)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)", re.ASCII)
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_REFERENCE = re.compile(r"\$\{[^}]*\}")


def read_text(text: str) -> str:
    """The text itself, which must not look as if something were to be expanded."""
    if (match := _REFERENCE.search(text)) is not None:
        raise Unfit(
            f"{match[0]} is not expanded here",
            "only secrets, such as credentials, come from the environment; write the value",
        )
    return text


def read_bool(text: str) -> bool:
    """``true`` or ``false``, and no other word for them."""
    if text not in ("true", "false"):
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
        mend = f"write {meant}" if meant in ("true", "false") else "write true or false"
        raise Unfit(f"{text!r} is neither true nor false", mend)
    return text == "true"


def read_int(text: str) -> int:
    """A whole number; ``_`` may part thousands."""
    if not _INT.fullmatch(text):
        raise Unfit(f"{text!r} is not a whole number", "write digits, such as 2048")
    return int(text)


def read_float(text: str) -> float:
    """A number."""
    if not _NUMBER.fullmatch(text):
        raise Unfit(f"{text!r} is not a number", "write one such as 0.35")
    return float(text)


def read_seconds(text: str) -> Seconds:
    """A duration with its unit."""
    try:
        return Seconds(parse_duration(text))
    except ValueError:
        mend = (
            f"add the unit: {text}s or {text}ms" if _NUMBER.fullmatch(text) else "write one such as 800ms, 3s, 5m, 24h"
        )
        raise Unfit(f"{text!r} is not a duration", mend) from None


def read_size(text: str) -> ByteSize:
    """A size in bytes with its unit; MB is a million, MiB 2^20."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Unfit(f"{text!r} is not a size", "write one such as 512MB or 2GiB")
    return ByteSize(int(float(match[1]) * _UNITS[match[2].upper()]))


def read_fraction(text: str) -> Fraction:
    """A percentage, or a number from 0 to 1."""
    number = text[:-1].rstrip() if text.endswith("%") else text
    if not _NUMBER.fullmatch(number):
        raise Unfit(f"{text!r} is neither a percentage nor a number from 0 to 1", "write one such as 5% or 0.05")
    value = float(number) / (100 if number != text else 1)
    if not 0.0 <= value <= 1.0:
        mend = f"write {text}% if that is meant" if number == text and 1 < value <= 100 else "write 0% to 100%"
        raise Unfit(f"{text!r} is not between 0 and 1", mend)
    return Fraction(value)


def read_enum(kind: type[Enum], text: str) -> Enum:
    """A member by the text that it shows as."""
    members = {str(member): member for member in kind}
    if text not in members:
        raise Unfit(f"{text!r} is not possible here", one_of(text, members))
    return members[text]


def read_secret(text: str, environment: Mapping[str, str]) -> str:
    """The value of the environment variable that the text names. What else the text may be is never quoted."""
    match = _VARIABLE.fullmatch(text)
    if match is None:
        raise Unfit("a secret must not stand in the file", "write ${NAME}, and set NAME in the environment")
    value = environment.get(match[1], "")
    if not value:
        what = "is empty" if match[1] in environment else "is not set"
        raise Unfit(f"the environment variable {match[1]} {what}", f"set {match[1]} before starting")
    return value


PLAIN: Mapping[Any, Callable[[str], Any]] = {
    str: read_text,
    bool: read_bool,
    int: read_int,
    float: read_float,
    Seconds: read_seconds,
    ByteSize: read_size,
    Fraction: read_fraction,
}
"""How a text becomes a value of each type that needs to know nothing but the text."""
