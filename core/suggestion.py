"""What someone who misspelt a name probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_LISTED = 12


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like this one, or ``None`` when none is much like it."""
    by_folded = {each.casefold(): each for each in known}
    matches = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def one_of(name: str, known: Iterable[str]) -> str:
    """How to mend an unknown name: the likely one, or a list of those there are."""
    names = sorted(known)
    if (match := closest(name, names)) is not None:
        return f"did you mean {match!r}?"
    if not names:
        return "there is none to name here"
    if len(names) == 1:
        return f"write {names[0]!r}"
    more = ", …" if len(names) > _MOST_LISTED else ""
    return "write one of " + ", ".join(names[:_MOST_LISTED]) + more
