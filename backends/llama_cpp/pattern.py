"""A regular expression of a JSON Schema in the words that its converter turns into a grammar."""

from __future__ import annotations

import re

from ...core.failure import AttemptError, FailureKind

_MOST_REPETITIONS = 1000
_REPEATED_AGAIN = re.compile(r"\{[0-9, ]+\}[^(]*\)+[{*+]")
_SET = re.compile(r"\[(?:\\.|[^\]\\])*\]", re.DOTALL)
_ESCAPED_BY_JSON = ('"', "\\", *map(chr, range(32)))
_BEYOND_SETS = re.compile(r'["\x00-\x1f]|\\[\\"a-zA-Z0-9]')
_PART = re.compile(r"(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<sign>\\.)|(?P<group>\((?:\?:)?)|(?P<other>.)", re.DOTALL)
_QUANTIFIERS = re.compile(r"(?:[*+?]|\{[^}]*\})[*+?{]")


def kept_pattern(pattern: object) -> str:
    """The pattern without what the converter misreads. Raises INVALID_REQUEST for one that no grammar keeps."""
    if not isinstance(pattern, str) or not _compiles(pattern):
        raise _refused("is no regular expression")
    if any(re.match(each, sign) for each in _SET.findall(pattern) for sign in _ESCAPED_BY_JSON) or _BEYOND_SETS.search(
        _SET.sub("", pattern)
    ):
        # They would stand in the answer as they are, which is then no JSON.
        raise _refused("has characters that JSON escapes, or a class; write sets such as [0-9]")
    if _REPEATED_AGAIN.search(pattern):
        # Where all of it may be empty, llama.cpp would look at each of the countless ways to be so.
        raise _refused("repeats what it repeats; simplify it")
    if any(int(number) > _MOST_REPETITIONS for number in re.findall(r"[0-9]{3,9}", pattern)):
        raise _refused(f"repeats more than {_MOST_REPETITIONS:,} times")
    if not (pattern.startswith("^") and pattern.endswith("$")):
        raise _refused("does not go from `^` to `$`; say what the whole text is like")
    return f"^{_body(pattern[1:-1])}$"


def _body(pattern: str) -> str:
    """What stands between ``^`` and ``$``, with what is escaped in it as a set of that character alone."""
    depth = 0
    body: list[str] = []
    plain = _SET.sub("x", re.sub(r"\\.", "x", pattern))
    if _QUANTIFIERS.search(plain):
        raise _refused("has a quantifier that is lazy or possessive; leave that out")
    for part in _PART.finditer(pattern):
        match part.lastgroup, part[0]:
            case "set", text:
                body.append(re.sub(r"\\([^\w\s])", lambda sign: _as_code(sign[1]), text))
            case "sign", text:
                body.append(f"[{_as_code(text[1])}]")
            case "group", _:
                depth += 1
                body.append("(")
            case _, "^" | "$" | "\\":
                raise _refused("has `^` or `$` within it; they stand at its ends alone")
            case _, "|" if depth == 0:
                raise _refused("has `|` outside of parentheses, where `^` and `$` hold for one side only")
            case _, other:
                depth -= other == ")"
                body.append(other)
    return "".join(body)


def _as_code(character: str) -> str:
    """A character in a set of a grammar, whatever it means there."""
    return f"\\x{ord(character):02X}" if ord(character) < 128 else character


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _refused(what: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, f"response_format's schema has a `pattern` that {what}")
