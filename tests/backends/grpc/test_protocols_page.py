"""What docs/protocols.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgewise.router.config import loads

from ...remotes.observed import tables
from ...remotes.write_page import rewritten

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "protocols.md").read_text(encoding="utf-8")


async def test_the_tables_are_what_calls_show() -> None:
    assert rewritten(PAGE, await tables()) == PAGE, "run `python -m tests.remotes.write_page`"


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_can_be_used(example: str, tmp_path: Path) -> None:
    policy = "policy: {data_classes: {public: {process_in: [any]}}}\n"
    configuration = loads(f"version: 1\n{example}{policy}", tmp_path, environment={"KEY": "k", "TOKEN": "t"})
    assert configuration.warnings == ()


def test_a_protocol_is_one_file_of_under_300_lines() -> None:
    files = sorted((DOCS.parent / "backends" / "grpc").glob("*_protocol*.py"))
    assert len(files) >= 3
    assert {file.name: lines for file in files if (lines := len(file.read_text().splitlines())) >= 300} == {}
