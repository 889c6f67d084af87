"""docs/policy.md: its configuration, its cases, its commands and its keys are as they are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from edgewise.core.decision import Decision
from edgewise.core.request import Labels, Task
from edgewise.router.cli.main import edgewise
from edgewise.router.cli.policy import policy
from edgewise.router.cli.starter import PRESETS
from edgewise.router.config.cases import ExpectSettings, GivenSettings
from edgewise.router.decision_log import line_of

from .conftest import Invoke

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_policy_loads_and_keeps_its_cases(invoke: Invoke, tmp_path: Path) -> None:
    configuration, cases = BLOCKS
    (tmp_path / "edgewise.yaml").write_text(configuration, encoding="utf-8")
    (tmp_path / "edgewise.tests.yaml").write_text(cases, encoding="utf-8")
    result = invoke("policy", "test", "--cover")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "2 passed, 0 failed; 2 of 2 rules covered")
    assert "kept: content of class health never reaches US, any" in invoke("policy", "prove").output


def test_the_page_names_the_commands_the_presets_and_the_keys_of_cases() -> None:
    assert set(re.findall(r"^edgewise policy (\w+)", PAGE, re.MULTILINE)) == set(policy.commands)
    assert re.findall(r"^\* `([a-z]+-[a-z-]+)`: ", PAGE, re.MULTILINE) == list(PRESETS)
    _, _, keys = PAGE.partition("`given` takes ")
    given, _, expect = keys.partition("`expect` takes ")
    for words, kind in ((given, GivenSettings), (expect.partition("\n\n")[0], ExpectSettings)):
        assert re.findall(r"`(\w+)`", words) == [field.name for field in fields(kind)]
    assert "policy" in edgewise.commands


def test_the_page_tells_every_key_of_the_decision_log() -> None:
    decision = Decision("r", Task.GENERATE, (), "v", 1.0, None, "", (), (), ())
    _, _, table = PAGE.partition("## The decision log")
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert told == list(line_of(decision, Labels(Task.GENERATE), "answered", "now"))
