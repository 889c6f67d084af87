"""Whatever a file holds, it is a configuration or a typed error that says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgewise.core.errors import ConfigurationError
from edgewise.core.problem import Problem
from edgewise.router.config import Configuration, load

from .conftest import POLICY, Mistakes


@pytest.mark.parametrize("kind", ["missing", "folder", "bytes", "large", "nul"])
def test_what_is_no_readable_file_is_a_typed_error(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "edgewise.yaml"
    if kind == "folder":
        file.mkdir()
    elif kind == "bytes":
        file.write_bytes(b"version: 1\nname: caf\xe9\n")
    elif kind == "large":
        file.write_bytes(b"#" * 20_000_000)
    with pytest.raises(ConfigurationError) as caught:
        load("a\0b" if kind == "nul" else file)
    (problem,) = caught.value.problems
    assert problem.position is not None
    assert (problem.position.line, problem.position.column) == ((2, 10) if kind == "bytes" else (1, 1))
    assert problem.mend


def test_aliases_cannot_multiply(mistakes: Mistakes) -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + at)}: &{chr(98 + at)} [*{chr(97 + at)}, *{chr(97 + at)}]\n" for at in range(20)
    )
    assert any("alias" in each.sentence for each in mistakes(bomb))


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n" + "".join(f"k{at}: v\n" for at in range(9000)),
        "a: [" + "b," * 200_000 + "]",
        "a: [" + "b," * 9000 + "x" * 400_000 + "]",
        "[" * 400_000,
        "a: |\n" + " x\n" * 100_000,
    ],
    ids=["keys", "items", "one long line", "brackets", "lines"],
)
def test_large_nonsense_ends_soon_and_is_told_in_few_words(mistakes: Mistakes, text: str) -> None:
    problems = mistakes(text)
    assert len(problems) <= 201
    assert sum(len(each.render()) for each in problems) < 100_000


anything = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="{}[]:,-'\"!&*#|> \n\tab1$%@?<", max_size=80),
    st.lists(st.sampled_from([*POLICY, "\n", ": ", "- ", "[", "]", "{", "}", "!", "'"]), max_size=60).map("".join),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=anything, at=st.integers(0, len(POLICY)))
@example(text="'", at=10)
def test_any_text_is_a_configuration_or_a_typed_error(read: Callable[..., Configuration], text: str, at: int) -> None:
    for candidate in (text, POLICY[:at] + text + POLICY[at:]):
        problems: tuple[Problem, ...] = ()
        try:
            configuration = read(candidate)
        except ConfigurationError as error:
            problems = error.problems
        else:
            assert configuration.policy.version
            problems = configuration.warnings
        assert all(each.position is not None and each.mend for each in problems)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.binary(max_size=100))
def test_any_bytes_are_a_configuration_or_a_typed_error(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_bytes(raw)
    with pytest.raises(ConfigurationError):
        load(file)
