"""How a mistake is shown: the line with a caret below, and never a secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgewise.core.errors import ConfigurationError
from edgewise.router.config import Configuration

from .conftest import BACKENDS, FAR, Mistakes


def test_the_excerpt_shows_the_line_with_a_caret_below(mistakes: Mistakes) -> None:
    problem = next(each for each in mistakes(BACKENDS + "modles: {}\n") if each.severity == "error")
    assert problem.render().splitlines() == [
        "edgewise.yaml:5:1: error: there is no section 'modles'",
        "  modles: {}",
        "  ^",
        "  mend: did you mean 'models'?",
    ]
    long = FAR + "    labels: [" + ", ".join(["label"] * 200) + "], wieght: 1\n"
    for problem in mistakes(long):
        assert max(map(len, problem.render().splitlines())) < 200


SECRET = "sk-Zebulon-Quartz-77"


@pytest.mark.parametrize(
    "line",
    [
        f"    credentials: {SECRET}",
        f"    credentials: 'Bearer {SECRET}'",
        f"    credentials: {SECRET}${{KEY}}",
        f"    credential: {SECRET}",
        f"    credentials: [{SECRET}]",
        f"    credentials: {{a: {SECRET}}}",
        f"    metadata: {SECRET}",
        f"    metadata: {{a: {SECRET}, b: [{SECRET}]}}",
        f"    credentials: {SECRET}: x",
        f"    credentials: &{SECRET}",
        f"    credentials: *{SECRET}",
        f"    credentials: !{SECRET}",
        f"    credentials: !{SECRET}! x",
        f"    credentials: '{SECRET}",
        f"    credentials: |\n      {SECRET}\n    wieght: 1",
        f"    ? [{SECRET}]\n    : {SECRET}",
        f"    kind: {SECRET}x\n    credentials: {SECRET}",
        f"    credentials: '${{KEY}}'\n    credentials: {SECRET}",
    ],
)
def test_a_secret_in_the_file_is_never_shown(read: Callable[..., Configuration], line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(FAR + line + "\n", KEY="hush")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.problems)
    assert "Zebulon" not in str(caught.value)


def test_a_secret_beside_a_mistake_is_hidden_and_the_caret_stays_right(mistakes: Mistakes) -> None:
    entry = f"{{kind: far, target: x, credentials: '${{KEY}}', credential: {SECRET}, eager: 3}}"
    text = f"version: 1\nbackends: {{a: {entry}}}\n"
    problems = mistakes(text, KEY="hush")
    assert all(SECRET not in each.render() and "hush" not in each.render() for each in problems)
    eager = next(each for each in problems if "neither" in each.sentence).render().splitlines()
    assert eager[1][eager[2].index("^") :] == "3}}"
