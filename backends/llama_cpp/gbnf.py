"""What a grammar in GBNF must be so that llama.cpp reads it in time, found out before it does.

Its parser ends the process over deep nesting and over tokens that do not exist, and never ends over a repetition that
goes backwards. Whatever else is wrong with a grammar, it says so itself.
"""

from __future__ import annotations

import re

from ...core.failure import AttemptError, FailureKind

_LONGEST = 1 << 18
_DEEPEST = 2000
_MOST_REPETITIONS = 50_000

_PARTS = re.compile(
    r"""
    "(?:[^"\\]|\\.)*+"                       # a text
    | \[(?:[^\]\\]|\\.)*+\]                  # a set of characters
    | \#[^\n]*+                              # a comment
    | (?P<open>\() | (?P<close>\))
    | \{\s*+(?P<least>[0-9]*+)\s*+(?:(?P<comma>,)\s*+(?P<most>[0-9]*+))?+\s*+\}
    | (?P<token><)
    | (?P<is>::=)
    | [\s\S]
    """,
    re.VERBOSE | re.DOTALL,
)


def require_readable(grammar: str) -> bytes:
    """The grammar's bytes. Raises INVALID_REQUEST for one that would end the worker, or never be read."""
    try:
        text = grammar.encode()
    except UnicodeEncodeError:
        raise _refused("is not Unicode (a lone surrogate)") from None
    if len(text) > _LONGEST:
        raise _refused(f"has {len(text):,} bytes, and {_LONGEST:,} are the most; simplify it")
    if b"\0" in text:
        raise _refused("holds a NUL")
    depth = repetitions = rules = 0
    for part in _PARTS.finditer(grammar):
        match part.lastgroup:
            case "open":
                depth += 1
            case "close":
                depth -= 1
            case "token":
                raise _refused("names a token by `<…>`, which is not read here; write its text")
            case "is":
                rules += 1
            case "least" | "comma" | "most":
                repetitions += _repetitions(part)
        if depth > _DEEPEST:
            raise _refused(f"is nested deeper than {_DEEPEST}")
        if repetitions > _MOST_REPETITIONS:
            raise _refused(f"repeats more than {_MOST_REPETITIONS:,} times altogether")
    if not rules:
        raise _refused("has no rule")
    return text


def _repetitions(part: re.Match[str]) -> int:
    """What ``{2}``, ``{2,}`` or ``{2,5}`` asks for at most."""
    numbers = [part["least"], part["most"]]
    if any(number is not None and len(number) > 9 for number in numbers):
        raise _refused("repeats too often")
    least = int(part["least"] or 0)
    most = int(part["most"]) if part["most"] else least
    if most < least:
        raise _refused("repeats something at most fewer times than at least")
    return most


def _refused(what: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, f"the response format's grammar {what}")
