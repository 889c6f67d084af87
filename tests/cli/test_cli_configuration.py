"""`init` writes what `check` accepts, and `check` shows every mistake where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgewise.router.cli.machine import MINILM, MINILM_TOKENIZER, SMOLLM2
from edgewise.router.cli.starter import PRESETS, Found, FoundModel, starter
from edgewise.router.cli.starter_cases import starter_cases
from edgewise.router.config import loads

from .conftest import COMMAND, Invoke

GENERATES = FoundModel(SMOLLM2, "0" * 64)
EMBEDS = (FoundModel(MINILM, "1" * 64), FoundModel(MINILM_TOKENIZER, "2" * 64))


def test_what_init_writes_passes_check(invoke: Invoke) -> None:
    written = invoke("init")
    assert written.exit_code == 0, written.output
    assert "phone" in written.output
    assert "embedder" in written.output
    judged = invoke("check")
    assert (judged.exit_code, judged.output) == (0, "edgewise.yaml: good\n")
    assert invoke("policy", "check").output == judged.output


@pytest.mark.parametrize(
    ("found", "backends"),
    [
        (Found(GENERATES, EMBEDS, None), {"phone", "embedder"}),
        (Found(GENERATES, None, None), {"phone"}),
        (Found(None, EMBEDS, "127.0.0.1:50051"), {"embedder", "cloud"}),
        (Found(None, None, "models.example.com:443"), {"cloud"}),
    ],
)
def test_the_starter_suits_whatever_is_found(found: Found, backends: set[str], tmp_path: Path) -> None:
    configuration = loads(starter(found), tmp_path)
    assert set(configuration.backends) == backends
    assert {"public", "personal", "health"} == set(configuration.policy_settings.data_classes)


def test_the_commented_backends_are_good_once_the_marks_are_removed(tmp_path: Path) -> None:
    text = starter(Found(GENERATES, EMBEDS, None))
    before, mark, after = text.partition("  # A remote model service: fill in")
    block, _, rest = after.partition("\npolicy:")
    active = "".join(line.replace("  # ", "  ", 1) for line in block.splitlines(keepends=True)[1:])
    configuration = loads(before + active + "\npolicy:" + rest, tmp_path)
    assert mark
    assert configuration.backends["cloud"].terms.remote


def test_the_starter_keeps_health_on_the_device_and_lets_only_public_go_to_an_unknown_place(invoke: Invoke) -> None:
    invoke("init", "--remote", "127.0.0.1:50051")
    for data_class, refused in (("public", False), ("personal", True), ("health", True)):
        planned = json.loads(invoke("plan", "--format", "json", "--data-class", data_class, "Hello").output)
        codes = {each["backend"]: each["code"] for each in planned["refusals"]}
        assert (codes.get("cloud") == "residency") is refused, data_class
        assert "phone" in [step["backend"] for step in planned["steps"]]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_init_writes_of_a_preset_passes_check(preset: str, tmp_path: Path) -> None:
    for found in (Found(GENERATES, EMBEDS, None), Found(GENERATES, EMBEDS, "models.example.com:443")):
        text = starter(found, preset)
        assert loads(text, tmp_path).warnings == ()
        assert f"# {preset}: " in text


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize(
    "found",
    [
        Found(GENERATES, None, None),
        Found(None, EMBEDS, None),
        Found(None, None, "models.example.com:443"),
        Found(GENERATES, EMBEDS, "models.example.com:443"),
    ],
    ids=lambda found: "+".join(found.backends),
)
def test_the_starter_s_policy_keeps_its_cases_and_they_show_every_rule(
    invoke: Invoke, tmp_path: Path, found: Found, preset: str | None
) -> None:
    (tmp_path / "edgewise.yaml").write_text(starter(found, preset), encoding="utf-8")
    cases = starter_cases(found, preset, "edgewise.yaml")
    (tmp_path / "edgewise.tests.yaml").write_text(cases, encoding="utf-8")
    result = invoke("policy", "test", "--cover")
    assert result.exit_code == 0, result.output
    assert all(name in cases for name in found.backends)


@pytest.mark.parametrize("preset", PRESETS)
def test_init_writes_cases_that_a_changed_policy_breaks(invoke: Invoke, tmp_path: Path, preset: str) -> None:
    written = invoke("init", "clinic.yaml", "--remote", "127.0.0.1:50051", "--preset", preset)
    assert "wrote clinic.tests.yaml" in written.output
    assert written.output.endswith("next: edgewise check clinic.yaml\n      edgewise policy test -c clinic.yaml\n")
    tested = invoke("policy", "test", "-c", "clinic.yaml", "--cover")
    assert tested.exit_code == 0, tested.output
    assert " 0 failed" in tested.output
    file = tmp_path / "clinic.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("public: {process_in: [any]}", "public: {process_in: []}"))
    assert invoke("policy", "test", "-c", "clinic.yaml").exit_code == 1


def test_init_overwrites_only_when_told_to(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_text("mine", encoding="utf-8")
    refused = invoke("init")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert file.read_text(encoding="utf-8") == "mine"
    assert invoke("init", "--force").exit_code == 0
    assert file.read_text(encoding="utf-8") != "mine"


def test_init_does_not_overwrite_cases_either(invoke: Invoke, tmp_path: Path) -> None:
    cases = tmp_path / "edgewise.tests.yaml"
    cases.write_text("mine", encoding="utf-8")
    refused = invoke("init")
    assert (refused.exit_code, cases.read_text(encoding="utf-8")) == (1, "mine")
    assert "edgewise.tests.yaml is there already" in refused.stderr
    assert not (tmp_path / "edgewise.yaml").exists()


def test_init_refuses_a_target_that_is_none(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init", "--remote", "https://models.example.com").exit_code == 2
    assert not (tmp_path / "edgewise.yaml").exists()


def test_init_says_what_to_install_where_nothing_can_answer(tmp_path: Path) -> None:
    blocked = (
        "import sys\n"
        "sys.modules['llama_cpp'] = sys.modules['onnxruntime'] = None\n"
        "from edgewise.router.cli.main import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", blocked, "init"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "pip install 'edgewise[llama]'" in ended.stderr
    assert "Traceback" not in ended.stderr


WRONG = """\
version: 1
backends:
  phone:
    kind: llama_cp
    model: smollm2
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    qualty: 0.9
"""


def test_check_shows_every_mistake_with_its_line_and_its_mend(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    ended = subprocess.run(
        [*COMMAND, "check", "wrong.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "wrong.yaml:4:11: error: there is no kind 'llama_cp'" in ended.stdout
    assert "wrong.yaml:9:5: error: there is no key 'qualty'" in ended.stdout
    assert "      kind: llama_cp\n            ^\n  mend: " in ended.stdout
    assert "\x1b" not in ended.stdout


def test_check_takes_the_file_in_both_ways(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    named, given = invoke("check", "wrong.yaml"), invoke("check", "-c", "wrong.yaml")
    assert (given.exit_code, given.output) == (1, named.output)
    assert invoke("check", "-c", "wrong.yaml", "wrong.yaml").exit_code == 2


def test_check_gives_problems_to_programs(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    result = invoke("check", "wrong.yaml", "--format", "json")
    judged = json.loads(result.output)
    assert (result.exit_code, judged["ok"]) == (1, False)
    first = next(each for each in judged["problems"] if each["severity"] == "error")
    assert first["position"]["line"] == 4
    assert first["mend"]
    assert set(first) == {"sentence", "mend", "path", "severity", "position", "offset"}


def test_check_warns_of_a_model_that_is_not_here(invoke: Invoke, tmp_path: Path) -> None:
    text = (
        "version: 1\nmodels:\n  own: {source: 'file:own.gguf'}\nbackends:\n  phone: {kind: llama_cpp, model: own}\n"
        "policy:\n  data_classes:\n    public: {process_in: [any]}\n"
    )
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    result = invoke("check")
    assert result.exit_code == 0
    assert "own.gguf" in result.output
    assert "1 warning" in result.output


def test_check_of_no_file_says_so(invoke: Invoke) -> None:
    result = invoke("check", "nowhere.yaml")
    assert result.exit_code == 1
    assert "nowhere.yaml" in result.output
    assert "edgewise init" in result.output
