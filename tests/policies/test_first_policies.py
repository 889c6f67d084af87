"""The three policies that the language must say without contortions, each held to its cases and to its proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgewise.router.cli.main import edgewise
from edgewise.router.config import load

EXAMPLES = Path(__file__).parents[2] / "examples"


def told(*arguments: str) -> Any:
    result = CliRunner().invoke(edgewise, ["policy", *arguments, "--format", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["clinic", "company", "consumer"])
def test_it_loads_without_a_warning_and_keeps_its_cases_which_cover_every_rule(name: str) -> None:
    file = EXAMPLES / f"{name}.yaml"
    assert load(file).warnings == ()
    found = told("test", "-c", str(file), "--cover")
    assert (found["ok"], found["rules_never_matched"]) == (True, [])


def bounds(name: str) -> dict[tuple[str, ...], Any]:
    proof = told("prove", "-c", str(EXAMPLES / f"{name}.yaml"))
    return {tuple(each["data_classes"]): each for each in proof["bounds"]}


def reached(bound: Any) -> set[str]:
    return {each["backend"] for each in bound["reached"]}


def test_health_data_can_be_on_the_device_and_in_the_clinics_gateway_alone() -> None:
    for classes, bound in bounds("clinic").items():
        if "health" in classes:
            assert reached(bound) <= {"tablet", "gateway"}, classes
    assert reached(bounds("clinic")["health",]) == {"tablet", "gateway"}


def test_staff_data_can_be_at_the_american_operators_european_region_and_personnel_files_cannot() -> None:
    found = bounds("company")
    assert reached(found["staff",]) == {"own", "region"}
    assert found["staff",]["process_in"] == ["DE", "NL"]
    for classes, bound in found.items():
        if "personnel_file" in classes:
            assert reached(bound) == {"own"}, classes
            assert bound["operators"] == ["DE"]


def test_a_diary_can_be_on_the_phone_alone() -> None:
    for classes, bound in bounds("consumer").items():
        if "diary" in classes:
            assert reached(bound) == {"phone"}
