"""A worker never outlives its application, however that ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits for a stranger's end by a pidfd")


@pytest.mark.parametrize("do", ["hold", "native_sleep"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
def test_the_worker_ends_with_the_application(do: str, number: signal.Signals) -> None:
    with _application(do) as (application, worker):
        application.send_signal(number)
        application.wait(10)
    assert _ended(worker)


def test_a_worker_that_was_stopped_ends_with_the_application() -> None:
    with _application("hold") as (_, worker):
        signal.pidfd_send_signal(worker, signal.SIGSTOP)
    assert _ended(worker)


def test_a_child_of_the_application_keeps_no_worker_alive() -> None:
    """One that was forked has the application's end of the socket too."""
    with _application("hold", "fork") as (_, worker):
        pass
    assert _ended(worker)


def test_a_worker_whose_application_ended_before_it_began_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ours, theirs = socket.socketpair()
    program = (sys.executable, "-m", "edgewise.backends.process.main", "no:engine", str(gone.pid), str(theirs.fileno()))
    with ours, theirs, subprocess.Popen(program, pass_fds=[theirs.fileno()]) as worker:
        try:
            assert worker.wait(10) == 0
        finally:
            worker.kill()


@contextmanager
def _application(*does: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """An application and a handle of its worker, which is at work; killed in the end."""
    program = (sys.executable, str(Path(__file__).parent / "_application.py"), *does)
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as application:
        assert application.stdout is not None
        try:
            yield application, os.pidfd_open(int(application.stdout.readline()))
        finally:
            application.kill()


def _ended(worker: int) -> bool:
    """Whether it ends in time; it is ended in any case."""
    ended, _, _ = select.select([worker], [], [], 5)
    if not ended:
        signal.pidfd_send_signal(worker, signal.SIGKILL)
    return bool(ended)
