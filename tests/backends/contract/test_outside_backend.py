"""A backend of another distribution: found by its entry point, held to the contract, used by the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "phrasebook"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the example as an installer would leave it: its module, and its metadata."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = tmp_path / f"edgewise_phrasebook-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in points.items()) for group, points in groups]
    (metadata / "entry_points.txt").write_text("".join(lines))
    for name in ("phrasebook.py", "test_phrasebook.py", "edgewise.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    return tmp_path


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_it_passes_the_contract_and_needs_no_plugin(installed: Path) -> None:
    run = _run(installed, "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "test_phrasebook.py")
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def test_a_configuration_names_its_kind_and_the_command_asks_it(installed: Path) -> None:
    run = _run(installed, "edgewise.router.cli", "ask", "How are you?")
    assert run.stdout.split() == ["All", "is", "well,", "thank", "you", "for", "asking."], run.stderr


def test_a_mistake_in_its_settings_is_told_like_any_other(installed: Path) -> None:
    file = installed / "edgewise.yaml"
    file.write_text(file.read_text().replace("phrase:", "phrse:"))
    run = _run(installed, "edgewise.router.cli", "check")
    assert run.returncode == 1
    assert "did you mean 'phrase'?" in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("import no_such_module", "(ModuleNotFoundError: No module named 'no_such_module')"),
        ("del KIND", "(AttributeError: module 'phrasebook' has no attribute 'KIND')"),
        ("KIND = 5", "is not a BackendKind"),
    ],
)
def test_a_kind_that_does_not_load_is_told_where_it_is_named(installed: Path, written: str, told: str) -> None:
    with (installed / "phrasebook.py").open("a") as module:
        module.write(f"\n{written}\n")
    run = _run(installed, "edgewise.router.cli", "check")
    assert run.returncode == 1
    printed = " ".join((run.stdout + run.stderr).split())
    assert told in printed
    assert "edgewise.yaml:" in printed
    assert "Traceback" not in printed


def test_the_documentation_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    assert (EXAMPLE / "phrasebook.py").read_text(encoding="utf-8") in page
    test = (EXAMPLE / "test_phrasebook.py").read_text(encoding="utf-8")
    assert test[test.index("class TestPhrasebook") :] in page
    assert '[project.entry-points."edgewise.backends"]\nphrasebook = "phrasebook:KIND"\n' in page
