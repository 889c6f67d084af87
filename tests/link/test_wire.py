"""The link over a real wire: two network namespaces with a pair of veth between them, and the true gRPC stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SEEN_WITHIN = 2.0
"""Seconds until a lost link is seen."""
BACK_WITHIN = 1.0
"""Seconds until a link that is back is used."""

BLAMED = {
    "the service is down": ("online", "unreachable", "the network works and 10.77.0.2:8443 is down"),
    "the service hangs": ("online", "unreachable", "the network works and 10.77.0.2:8443 hangs"),
    "a portal answers in its name": ("limited", "intercepted", "a captive portal"),
}

ROOT = Path(__file__).parents[2]


def namespace() -> list[str]:
    """The command that runs another one in a network namespace of its own; skips, with the reason, where none may."""
    unshare = shutil.which("unshare")
    if sys.platform != "linux" or unshare is None:
        pytest.skip("needs Linux and util-linux' unshare; test_relay.py stands in")
    own = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--user", "--map-root-user", "--net"]
    tried = subprocess.run([*own, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace may be made here ({tried.stderr.strip()}); test_relay.py stands in")
    return own


def test_a_real_wire_that_fails_in_every_way_is_noticed_and_used_again_in_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [*namespace(), sys.executable, "-m", "tests.link.scenes"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stderr
    scenes = {scene.pop("scene"): scene for scene in map(json.loads, run.stdout.splitlines())}
    with capsys.disabled():
        print()
        for name, scene in scenes.items():
            print(f"  {name}: {scene}")
    assert len(scenes) == 11
    for scene in scenes.values():
        # What the machine gave to others in between is not ours.
        waited = scene["waited_for_a_core"]
        assert scene.get("offline", 0.0) <= SEEN_WITHIN + waited
        assert scene["back"] <= BACK_WITHIN + waited
        assert scene["failed"] == []
        if "noticed" not in scene:
            assert scene["slowest_answer"] <= SEEN_WITHIN + 0.5 + waited
    for name, (state, code, why) in BLAMED.items():
        told = scenes[name]["told"]
        assert (told["state"], told["code"]) == (state, code)
        assert why in told["why"]
    assert scenes["a VPN comes up and ends"]["carried"] == ["service"]
    told = scenes["the link comes and goes"]["told"]
    assert told["online"] <= 2
    assert told["offline"] <= 3
