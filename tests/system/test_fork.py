"""A process that forks while its gRPC is in use, or no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")

CONFIGURATION = """
version: 1
backends:
  cloud: {{kind: grpc, target: {target}, location: {{process_in: [NL]}}, works_offline: true}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  defaults: {{latency_budget: 20s}}
"""
# A program of its own: the tests' process has gRPC in use already.
PROGRAM = """
import os, sys, time
from edgewise.router import BackendError, Router

def ask():
    begun = time.monotonic()
    with Router.from_yaml(sys.argv[1]) as router:
        try:
            print("answered by", router.generate("Hello", latency_budget=8.0).backend, flush=True)
        except BackendError as error:
            at_once = "at once" if time.monotonic() - begun < 2.0 else "late"
            print(at_once, error, flush=True)

def in_child():
    child = os.fork()
    if child == 0:
        ask()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

router = Router.from_yaml(sys.argv[1])
router.generate("Hello")
if sys.argv[2] == "closed":
    router.close()
in_child()
if sys.argv[2] == "open":
    print("the parent:", router.generate("Hello").backend)
"""


def run(tmp_path: Path, server: Server, parent: str) -> str:
    file = tmp_path / "edgewise.yaml"
    file.write_text(CONFIGURATION.format(target=server.address))
    command = [sys.executable, "-c", PROGRAM, str(file), parent]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_child_of_a_process_whose_grpc_is_in_use_says_so_at_once(tmp_path: Path, server: Server) -> None:
    told, parent = run(tmp_path, server, "open").splitlines()
    assert told.startswith("at once")
    assert "this process was forked while gRPC was in use" in told
    assert parent == "the parent: cloud"


def test_a_child_of_a_process_that_has_closed_its_routers_may_ask(tmp_path: Path, server: Server) -> None:
    assert run(tmp_path, server, "closed") == "answered by cloud\n"
