"""Names that are not what they look like: warned of where they are declared, for people compare them by eye."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from ...core.problem import Path, Problem, Severity
from ...policies.settings import PolicySettings
from .backends import WrittenBackend

_ALPHABETS = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN"})
"""Those with letters that look alike, by the first word of their letters' Unicode names."""

_TWINS = str.maketrans(
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u03b1\u03bd\u03bf\u03c1\u03c5"
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425"
    "\u0430\u0435\u0455\u0456\u0458\u043e\u0440\u0441\u0443\u0445\u04bb\u0501\u051b\u051d\u04cf"
    "\u054d\u054f\u0555"
    "\u0570\u0578\u057d\u0581\u0585",
    "ABEZHIKMNOPTYXavopuABESIJKMHOPCTYXaesijopcyxhdqwlUSOhnugo",
)
"""Greek, Cyrillic and Armenian letters that are drawn like Latin ones, after Unicode's confusables.txt (UTS #39)."""


def check_names(settings: PolicySettings, backends: Iterable[WrittenBackend]) -> list[Problem]:
    """A warning for every declared name that looks like another text. Paths count from the whole configuration."""
    backends = list(backends)
    of_backends: dict[str, Path] = {
        label: ("backends", each.name, "labels", at) for each in backends for at, label in enumerate(each.common.labels)
    }
    of_backends |= {each.name: ("backends", each.name) for each in backends}
    places: dict[str, Path] = {name: ("policy", "groups", name) for name in settings.groups}
    places |= {name: ("policy", "sites", name) for name in settings.sites}
    kinds: list[Mapping[str, Path]] = [
        of_backends,  # and labels: lists in rules take both
        places,
        {name: ("policy", "data_classes", name) for name in settings.data_classes},
        {name: ("policy", "tags", name) for name in settings.tags},
    ]
    return [problem for names in kinds for problem in _judge(names)]


def _judge(names: Mapping[str, Path]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name, path in names.items():
        found = _oddity(name)
        if found is None and (other := seen.setdefault(_skeleton(name), name)) != name:
            found = f"{name!r} reads like {other!r}", "give it a name that nobody takes for the other"
        if found is not None:
            yield Problem(*found, path, Severity.WARNING)


def _oddity(name: str) -> tuple[str, str] | None:
    """What of a name cannot be seen, with the mend."""
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        return f"{name!r} is not written as it reads", f"write {plain!r}"
    by_alphabet: dict[str, str] = {}
    for letter in name:
        alphabet = unicodedata.name(letter, "").partition(" ")[0]
        if alphabet in _ALPHABETS:
            by_alphabet.setdefault(alphabet, letter)
    if len(by_alphabet) > 1:
        letters = " and ".join(
            f"{letter!r} (U+{ord(letter):04X}) is {alphabet.capitalize()}" for alphabet, letter in by_alphabet.items()
        )
        return f"{name!r} mixes letters that look alike: {letters}", "type it anew, all in one alphabet"
    return None


def _skeleton(name: str) -> str:
    """The name without what the eye passes over: alphabets, capitals, accents, and how words are joined."""
    bare = (each for each in unicodedata.normalize("NFKD", name) if not unicodedata.combining(each))
    return "".join(bare).translate(_TWINS).casefold().replace("_", "-").replace(" ", "-")
