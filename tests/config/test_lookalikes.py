"""Declared names that are not what they look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgewise.router.config import Configuration

from .conftest import BACKENDS, FAR, POLICY


@pytest.mark.parametrize(
    ("text", "place", "sentence", "mend"),
    [
        (POLICY.replace("public", "h\u0435alth"), (6, 18), "'\u0435' (U+0435) is Cyrillic", "one alphabet"),
        (POLICY + "  sites: {pr\u03b1xis: {in: DE}}\n", (7, 11), "is Greek", "one alphabet"),
        (FAR + "    labels: [metered, m\u0435tered]\n", (6, 23), "is Cyrillic", "one alphabet"),
        (POLICY + "  tags: {\uff41pp: [web]}\n", (7, 10), "not written as it reads", "write 'app'"),
        (POLICY.replace("public", "e\u0301tat"), (6, 18), "not written as it reads", "write '\u00e9tat'"),
        (FAR + "    labels: [A]\n", (3, 3), "'a' reads like 'A'", "other"),
        (
            POLICY + "  tags: {cope: [a], \u0441\u043e\u0440\u0435: [b]}\n",
            (7, 21),
            "reads like 'cope'",
            "other",
        ),
        (POLICY + "  tags: {\u0391\u0392\u0395: [a], abe: [b]}\n", (7, 20), "reads like '\u0391\u0392\u0395'", "other"),
        (
            POLICY + "  sites: {the ward: {in: DE}, the_ward: {in: NL}}\n",
            (7, 31),
            "'the_ward' reads like 'the ward'",
            "",
        ),
        (
            POLICY + "  sites: {EU_own: {in: DE}}\n"
            "  groups: {eu-own: {members: [DE], as_of: 2026-01-01, source: the ministry}}\n",
            (7, 11),
            "'EU_own' reads like 'eu-own'",
            "",
        ),
    ],
)
def test_a_name_that_looks_like_another_text_is_warned_of(
    read: Callable[..., Configuration], text: str, place: tuple[int, int], sentence: str, mend: str
) -> None:
    (found,) = [each for each in read(text).warnings if sentence in each.sentence]
    assert found.position is not None
    assert (found.position.line, found.position.column) == place
    assert mend in found.mend


def test_names_in_any_one_alphabet_are_as_good_as_others(read: Callable[..., Configuration]) -> None:
    letters = ["\u0437\u0434\u043e\u0440\u043e\u0432\u044c\u0435", "\u03c5\u03b3\u03b5\u03af\u03b1", "\u5065\u5eb7data"]
    names = ["health", *letters, "sant\u00e9", "staff 2", "class-3"]
    classes = "".join(f"    {name}: {{process_in: [any]}}\n" for name in names)
    text = BACKENDS + f"policy:\n  data_classes:\n{classes}  default_data_class: health\n"
    assert [each.sentence for each in read(text).warnings if "like" in each.sentence or "reads" in each.sentence] == []
