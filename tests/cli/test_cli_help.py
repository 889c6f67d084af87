"""Help teaches, and is quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import COMMAND, Invoke

POLICY = [f"policy {each}" for each in ("check", "explain", "matrix", "prove", "test", "diff", "schema")]
COMMANDS = ["init", "ask", "plan", "check", "serve", "demo"]


def test_help_lists_the_commands_and_the_exit_codes(invoke: Invoke) -> None:
    shown = invoke("--help").output
    for word in [*COMMANDS, "policy", "Exit codes:", "130", "interrupted", "Examples:"]:
        assert word in shown


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "policy check",
        "policy explain",
        "policy matrix",
        "policy prove",
        "policy test",
        "policy diff",
        "policy schema",
    ],
)
def test_every_command_shows_an_example_of_its_own(invoke: Invoke, command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:")
    assert f"edgewise {command.removeprefix('policy check') or 'check'}" in examples


def test_help_waits_for_no_engine_and_no_library() -> None:
    heavy = {"grpc", "numpy", "yaml", "rich", "psutil", "llama_cpp", "onnxruntime", "cel_expr_python"}
    code = (
        "import sys\n"
        "from edgewise.router.cli.main import edgewise\n"
        "edgewise(['--help'], standalone_mode=False)\n"
        f"print('loaded:', sorted({heavy!r} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.endswith("loaded: []\n")


def test_a_misspelt_command_is_a_usage_error() -> None:
    ended = subprocess.run([*COMMAND, "aks"], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
