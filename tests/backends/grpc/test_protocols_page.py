"""What docs/protocols.md says is so."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from edgewise.router.config import loads

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "protocols.md").read_text(encoding="utf-8")


def test_the_table_of_statuses_is_the_one_in_use() -> None:
    spec = importlib.util.spec_from_file_location("generate_protocols", DOCS / "generate_protocols.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.rewritten(PAGE) == PAGE, "run `python docs/generate_protocols.py`"


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_can_be_used(example: str, tmp_path: Path) -> None:
    policy = "policy: {data_classes: {public: {process_in: [any]}}}\n"
    configuration = loads(f"version: 1\n{example}{policy}", tmp_path, environment={"KEY": "k", "TOKEN": "t"})
    assert configuration.warnings == ()
