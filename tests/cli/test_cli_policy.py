"""`edgewise policy`: explain, matrix, prove, test, diff and schema, on the clinic's policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Invoke

CLINIC = (Path(__file__).parents[2] / "examples" / "clinic.yaml").read_text(encoding="utf-8")
METERED = "      deny: [metered]\n"


@pytest.fixture
def clinic(invoke: Invoke, tmp_path: Path) -> Invoke:
    """The command in a folder that has the clinic's policy."""
    (tmp_path / "edgewise.yaml").write_text(CLINIC, encoding="utf-8")
    return invoke


def data(invoke: Invoke, *arguments: str) -> Any:
    return json.loads(invoke("policy", *arguments, "--format", "json").output)


# --- explain


def test_explain_names_every_backend_every_rule_and_every_reason(clinic: Invoke) -> None:
    result = clinic("policy", "explain", "--data-class", "health", "--metered", "--battery", "10", "--discharging")
    assert result.exit_code == 0
    assert "gateway: number 1" in result.output
    assert "cloud: refused\n    - class 'health' permits process_in" in result.output
    assert "- rule 'pay for nothing on a metered link' denies it" in result.output, "not the first reason alone"
    assert "tablet: number 2, the last resort" in result.output
    assert "- rule 'save the battery' avoids it" in result.output
    assert "the ward waits for nobody: does not match" in result.output


def test_explain_gives_the_same_to_programs(clinic: Invoke) -> None:
    told = data(clinic, "explain", "--data-class", "personal", "--tag", "department=ward", "--down", "gateway")
    assert [step["backend"] for step in told["steps"]] == ["cloud", "tablet"]
    assert {each["backend"]: each["permitted"] for each in told["backends"]} == {
        "tablet": True,
        "gateway": False,
        "cloud": True,
    }
    assert {each["name"]: each["holds"] for each in told["rules"]}["the ward waits for nobody"] is True
    assert told["latency_budget"] == 4.0


def test_explain_ends_as_documented(clinic: Invoke) -> None:
    assert clinic("policy", "explain", "--backend", "cloud", "--link", "offline").exit_code == 3
    unknown = clinic("policy", "explain", "--data-class", "healht")
    assert (unknown.exit_code, "did you mean 'health'" in unknown.stderr) == (2, True)
    assert clinic("policy", "explain", "--at", "25:00").exit_code == 2
    assert clinic("policy", "explain", "-c", "nowhere.yaml").exit_code == 1


# --- matrix and prove


def test_matrix_says_for_each_class_and_backend_whether_and_why(clinic: Invoke) -> None:
    cells = {(each["data_class"], each["backend"]): each for each in data(clinic, "matrix")["cells"]}
    assert len(cells) == 9
    assert cells["health", "cloud"]["may"] is False
    assert "permits process_in [site:practice]" in cells["health", "cloud"]["why_not"]
    assert cells["personal", "cloud"]["where"] == "not (connectivity.metered)"
    assert cells["health", "tablet"]["where"] is None
    text = clinic("policy", "matrix").output
    assert "health, cloud: no, class 'health' permits" in text


def test_prove_bounds_every_class_and_every_two_together(clinic: Invoke) -> None:
    proof = data(clinic, "prove")
    bounds = {tuple(each["data_classes"]): each for each in proof["bounds"]}
    assert len(bounds) == 6
    assert [each["backend"] for each in bounds["health",]["reached"]] == ["tablet", "gateway"]
    assert bounds["health",]["weakest_evidence"] == {"DE": "contractual", "site:practice": "contractual"}
    assert bounds["health", "public"]["process_in"] == ["site:practice"]
    assert set(bounds["public",]["operators"]) == {"DE", "US"}
    assert proof["not_proven"]


def test_prove_shows_the_promises_that_are_kept(clinic: Invoke, tmp_path: Path) -> None:
    kept = CLINIC + "  assert:\n    - never: {data_class: health, reaches: [US, any]}\n"
    (tmp_path / "edgewise.yaml").write_text(kept, encoding="utf-8")
    shown = clinic("policy", "prove").output
    assert "kept: content of class health never reaches US, any" in shown
    assert "not proven:" in shown
    broken = kept.replace("data_class: health, reaches", "data_class: personal, reaches")
    (tmp_path / "edgewise.yaml").write_text(broken, encoding="utf-8")
    for command in ("prove", "check"):
        result = clinic("policy", command)
        assert result.exit_code == 1
        assert "may reach the backend 'cloud' (operators [US]), where not (connectivity.metered)" in (
            result.output + result.stderr
        )


# --- test

CASES = """\
cases:
  - name: a finding stays in the practice
    given: {data_class: [health], metered: true}
    expect:
      order: [gateway, tablet]
      refused: {cloud: residency}
      reasons: {cloud: permits process_in}
      matched: [pay for nothing on a metered link]
      hedge: true
      queue: true
  - name: the ward is in a hurry
    given: {data_class: [personal], tags: {department: ward}, battery_percent: 5, charging: false, down: [gateway]}
    expect: {order: [cloud, tablet], latency_budget: 4s, refused: {gateway: unreachable}}
"""


def test_a_policy_that_does_as_its_cases_expect_passes(clinic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "edgewise.tests.yaml").write_text(CASES, encoding="utf-8")
    result = clinic("policy", "test", "--cover")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "2 passed, 0 failed; 3 of 3 rules covered")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("order: [gateway, tablet]", "order: [tablet]", "order: expected [tablet], got [gateway, tablet]"),
        ("{cloud: residency}", "{tablet: denied}", "refused tablet: expected denied, got permitted"),
        ("permits process_in", "too dear", "reasons cloud: expected 'too dear' in \"class 'health'"),
        ("hedge: true", "hedge: false", "hedge: expected false, got true"),
        ("queue: true", "queue: false", "queue: expected false, got true"),
        ("latency_budget: 4s", "latency_budget: 5s", "latency_budget: expected 5 s, got 4 s"),
        ("[pay for nothing on a metered link]", "[]", "matched: expected [], got [pay for"),
    ],
)
def test_a_case_that_fails_says_what_is_different(
    clinic: Invoke, tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    (tmp_path / "other.yaml").write_text(CASES.replace(right, wrong), encoding="utf-8")
    result = clinic("policy", "test", "other.yaml")
    assert result.exit_code == 1
    assert told in result.output
    assert "1 passed, 1 failed" in result.output


def test_rules_that_no_case_matches_are_told_and_fail_on_demand(clinic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "edgewise.tests.yaml").write_text(CASES.partition("  - name: the ward")[0], encoding="utf-8")
    assert data(clinic, "test")["rules_never_matched"] == ["the ward waits for nobody", "save the battery"]
    assert (clinic("policy", "test").exit_code, clinic("policy", "test", "--cover").exit_code) == (0, 1)


@pytest.mark.parametrize(
    ("cases", "place", "sentence"),
    [
        ("cases:\n  - name: x\n    given: {data_class: [healht]}\n    expect: {}\n", "3:26", "knows no 'healht'"),
        ("cases:\n  - name: x\n    expect: {order: [clud]}\n", "3:22", "knows no 'clud'"),
        ("cases:\n  - name: x\n    expect: {matched: [y]}\n", "3:24", "knows no 'y'"),
        ("cases:\n  - name: x\n    given: {time: 25:00}\n    expect: {}\n", "3:19", "no time"),
        ("cases:\n  - name: x\n    given: {latency: {cloud: 0s}}\n    expect: {}\n", "3:30", "no time"),
        ("cases:\n  - name: x\n    given: {process_in: [UK]}\n    expect: {}\n", "3:26", "no known place"),
        ("cases:\n  - name: x\n    expcet: {}\n", "3:5", "no key 'expcet'"),
        ("cases:\n  - name: x\n    expect: {refused: {cloud: never}}\n", "3:31", "not possible"),
        ("", "1:1", "is empty"),
        ("cases: [", "1:9", "not YAML"),
    ],
)
def test_a_mistake_in_the_cases_has_its_place(
    clinic: Invoke, tmp_path: Path, cases: str, place: str, sentence: str
) -> None:
    (tmp_path / "edgewise.tests.yaml").write_text(cases, encoding="utf-8")
    result = clinic("policy", "test")
    assert result.exit_code == 1
    line = next(each for each in result.stderr.splitlines() if f"edgewise.tests.yaml:{place}: error" in each)
    assert sentence in line


# --- diff


def write_new(folder: Path, change: Callable[[str], str]) -> None:
    (folder / "new.yaml").write_text(change(CLINIC), encoding="utf-8")


@pytest.mark.parametrize(
    ("right", "wrong", "opened"),
    [
        (METERED, "      avoid: [metered]\n", {("personal", "cloud"), ("public", "cloud")}),
        ('request.priority != "high"', 'request.priority == "low"', {("personal", "cloud"), ("public", "cloud")}),
        (
            'process_in: ["site:practice"]\n      operators: [DE]',
            "process_in: [any]",
            {("health", "cloud")},
        ),
        ("default_data_class: health", "default_data_class: public", {("", "cloud")}),
        ("process_in: [NL], ", "process_in: [NL, IE], ", {("personal", "cloud"), ("public", "cloud")}),
        ("[NL], operators: [US], evidence: contractual", "[NL], operators: [US]", {("public", "cloud")}),
        (" && !device.charging", "", set()),
        (METERED, "      deny: [remote]\n", set()),
        ("default_data_class: health", "default_data_class: health\n  offline: {queue_ttl: 1h}", set()),
    ],
)
def test_diff_shouts_where_content_may_now_go(
    clinic: Invoke, tmp_path: Path, right: str, wrong: str, opened: set[tuple[str, str]]
) -> None:
    assert right in CLINIC
    write_new(tmp_path, lambda text: text.replace(right, wrong))
    told = data(clinic, "diff", "edgewise.yaml", "new.yaml")
    found = {("".join(each["data_classes"]), each["backend"]) for each in told["opened"]}
    assert found == opened
    assert told["changed"]
    text = clinic("policy", "diff", "edgewise.yaml", "new.yaml")
    assert text.exit_code == (1 if opened else 0)
    assert ("MAY NOW GO TO cloud" in text.output) is bool(opened)


def test_diff_tells_what_is_closed_and_that_nothing_changed(clinic: Invoke, tmp_path: Path) -> None:
    write_new(tmp_path, lambda text: text.replace("      operators: [EU, CH, US]\n", ""))
    closed = data(clinic, "diff", "edgewise.yaml", "new.yaml")["closed"]
    assert [(each["data_classes"], each["backend"]) for each in closed] == [(["personal"], "cloud")]
    same = clinic("policy", "diff", "edgewise.yaml", "edgewise.yaml")
    assert (same.exit_code, same.output) == (0, "nothing changes\n")


# --- schema


def test_schema_has_the_keys_that_are_read(invoke: Invoke) -> None:
    schema = json.loads(invoke("policy", "schema").output)
    policy = schema["properties"]["policy"]["properties"]
    assert {"data_classes", "rules", "assert", "groups"} <= set(policy)
    assert policy["rules"]["items"]["required"] == ["name"]
    assert policy["rules"]["items"]["additionalProperties"] is False
    kinds = [each["title"] for each in schema["properties"]["backends"]["additionalProperties"]["anyOf"]]
    assert {"grpc", "llama_cpp", "onnx"} <= set(kinds)
