"""What the documentation and the examples say is so."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgewise.core.duration import parse_duration
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.policies.conditions import VARIABLES
from edgewise.router import Router
from edgewise.router.cli.ending import MEANINGS
from edgewise.router.cli.main import edgewise
from edgewise.router.config import load, loads
from edgewise.testing import Script, ScriptedBackend

from .conftest import COMMAND, Invoke

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _block(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_reference_has_every_key_as_it_is_read() -> None:
    fresh = _module(ROOT / "docs" / "generate_configuration.py").rewritten(REFERENCE)
    assert fresh == REFERENCE, "run `python docs/generate_configuration.py`"


def test_the_reference_s_durations_can_be_written_as_they_stand_there() -> None:
    shown = re.findall(r"^\| `\w+` \| duration \| `(.+?)` \|", REFERENCE, re.MULTILINE)
    assert len(shown) > 5
    assert all(parse_duration(each) > 0 for each in shown)
    assert not re.search(r"^\| `stream_failover` \|.*`restart`.*", REFERENCE, re.MULTILINE)


def test_the_reference_has_every_variable_of_conditions() -> None:
    shown = re.findall(r"^\| `((?:request|connectivity|device|spending|time)\.\w+)` \|", REFERENCE, re.MULTILINE)
    assert sorted(shown) == sorted(VARIABLES)


def test_links_within_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            assert not path or (page.parent / path).exists(), f"{page.name}: {target}"
            if anchor and not path:
                headings = {re.sub(r"[^\w -]", "", each).replace(" ", "-").lower() for each in _headings(text)}
                assert anchor in headings or f'id="{anchor}"' in text, f"{page.name}: {target}"


def _headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


def test_the_readme_names_the_exit_codes_as_the_command_does() -> None:
    shown = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert shown == [(str(int(code)), meaning) for code, meaning in MEANINGS]


def test_the_readme_names_commands_that_there_are() -> None:
    _, _, commands = README.partition("## The commands")
    named = set(re.findall(r"^edgewise (\w+)", _block(commands, ""), re.MULTILINE))
    assert named == set(edgewise.commands)


def test_the_readme_s_configuration_can_be_used(tmp_path: Path) -> None:
    configuration = loads(_block(README, "yaml"), tmp_path)
    assert configuration.warnings == ()


def test_the_configuration_of_onnx_models_can_be_used(tmp_path: Path) -> None:
    configuration = loads(_block((ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), "yaml"), tmp_path)
    tasks = {name: set(entry.terms.tasks) for name, entry in configuration.backends.items()}
    assert tasks == {
        "embedder": {Task.EMBED},
        "moods": {Task.CLASSIFY},
        "tensors": {Task.INFER},
        "phone": {Task.GENERATE, Task.COUNT_TOKENS},
    }


def test_the_configuration_of_gguf_models_can_be_used(tmp_path: Path) -> None:
    configuration = loads(_block((ROOT / "docs" / "llama_cpp.md").read_text(encoding="utf-8"), "yaml"), tmp_path)
    assert set(configuration.backends["phone"].terms.tasks) == {Task.GENERATE, Task.COUNT_TOKENS}


def test_the_readme_s_program_runs_on_a_real_model(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("init").exit_code == 0
    (tmp_path / "program.py").write_text(_block(README, "python"), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "answered by phone" in ended.stdout


def _clinic(**scripts: Script) -> tuple[Router, dict[str, ScriptedBackend]]:
    scripted = {name: ScriptedBackend(name, scripts.get(name)) for name in ("tablet", "gateway", "cloud")}
    return Router(load(ROOT / "examples" / "clinic.yaml"), backends=dict(scripted)), scripted


def test_the_clinic_s_policy_keeps_findings_in_the_practice_whatever_fails() -> None:
    broken = Script(failure=AttemptError(FailureKind.UNREACHABLE, "the gateway is away"))
    router, scripted = _clinic(gateway=broken)
    with router:
        router.connectivity.set_metered(False)
        for data_class in ("health", None):
            assert router.generate("A finding", data_class=data_class).backend == "tablet"
        assert scripted["cloud"].calls == []
        assert router.generate("An appointment", data_class="personal").backend == "cloud"


def test_the_clinic_s_rules_do_what_their_names_say() -> None:
    router, _ = _clinic()
    with router:
        metered = router.plan("Opening hours", data_class="public")
        assert [step.backend for step in metered.steps] == ["gateway", "tablet"]
        urgent = router.plan("Opening hours", data_class="public", priority="high")
        assert urgent.steps[0].backend == "cloud"
        assert router.plan("A note", tags={"department": "ward"}).latency_budget == 4.0


def test_the_example_program_streams_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    router, _ = _clinic()
    with router:
        _module(ROOT / "examples" / "ask.py").ask(router, "What may help?", "health")
    shown = capsys.readouterr().out
    assert shown.startswith("a scripted answer\n")
    assert "answered by gateway" in shown


def test_the_example_program_says_what_is_wrong_with_a_file() -> None:
    program = ROOT / "examples" / "ask.py"
    ended = subprocess.run(
        [sys.executable, str(program), "nowhere.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "nowhere.yaml:1:1: error:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_clinic_s_policy_passes_check() -> None:
    ended = subprocess.run(
        [*COMMAND, "check", "examples/clinic.yaml"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "examples/clinic.yaml: good\n")
