"""A worker never outlives its application, however that ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits for a stranger's end by a pidfd")


@pytest.mark.parametrize("do", ["hold", "native_sleep"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
def test_the_worker_ends_with_the_application(do: str, number: signal.Signals) -> None:
    program = Path(__file__).parent / "_application.py"
    with subprocess.Popen(
        [sys.executable, program, do], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as application:
        assert application.stdout is not None
        try:
            worker = os.pidfd_open(int(application.stdout.readline()))
            application.send_signal(number)
            application.wait(10)
        finally:
            application.kill()
    ended, _, _ = select.select([worker], [], [], 5)
    assert ended
