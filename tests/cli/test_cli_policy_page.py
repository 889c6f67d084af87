"""docs/policy.md: its configuration, its cases, its commands and its keys are as they are."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import datetime
from pathlib import Path

from edgewise.core.decision import Decision
from edgewise.core.request import Task
from edgewise.policies.conditions import VARIABLES
from edgewise.router.cli.main import edgewise
from edgewise.router.cli.policy import policy
from edgewise.router.cli.starter import PRESETS
from edgewise.router.config import loads
from edgewise.router.config.cases import ExpectSettings, GivenSettings, facts_of
from edgewise.router.decision_line import line_of

from .conftest import Invoke

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
CONFIGURATION = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
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


def test_the_page_tells_every_key_of_the_decision_log(tmp_path: Path) -> None:
    configuration = loads(BLOCKS[0], tmp_path)
    given = GivenSettings(tags={}, process_in=("DE",))
    facts = facts_of(given, configuration.policy)
    decision = Decision("r", Task.GENERATE, (), "v", 1.0, None, "", (), (), ())
    line = json.loads(line_of(decision, facts, configuration.policy, "answered", datetime.now(), 0))
    _, _, table = PAGE.partition("## The decision log")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*) \|$", table, re.MULTILINE)
    told = {key: meaning for keys, meaning in rows for key in re.findall(r"`(\w+)`", keys)}
    assert list(told) == list(line)
    assert set(re.findall(r"`(\w+)`", told["labels"])) == set(line["labels"])
    assert set(re.findall(r"`(\w+)`", told["backends"])) == {
        *line["backends"]["cloud"],
        "code",
        "sentence",
        "p50",
        "p95",
    }
    conditions = CONFIGURATION.partition("### Conditions")[2].partition("## `serve`")[0]
    for section in ("link", "device", "time", "spending"):
        named = "connectivity" if section == "link" else section
        keys = re.findall(rf"^\| `{named}\.(\w+)` \|", conditions, re.MULTILINE)
        assert set(keys) == set(line[section]) - {"forced"}


def test_every_fact_that_conditions_read_is_told_with_its_type_and_its_meaning() -> None:
    conditions = CONFIGURATION.partition("### Conditions")[2].partition("## `serve`")[0]
    told = re.findall(r"^\| `([a-z_.]+)` \| ([a-z ]+) \| (.+) \|$", conditions, re.MULTILINE)
    types = {name: kind for name, kind, _ in told}
    words = {"STRING": "string", "INT": "int", "BOOL": "bool", "DURATION": "duration"}
    assert list(types) == list(VARIABLES)
    for name, variable in VARIABLES.items():
        assert types[name] == words.get(variable.type.name(), types[name]), name
