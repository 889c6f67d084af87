"""Runs tests over a mutant in a forked child, which imports edgewise with the mutant in it."""

from __future__ import annotations

import importlib.machinery
import os
import signal
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .mutants import Mutant

QUIET = ("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--no-header", "--no-summary")
"""How pytest runs where all that counts is whether a test fails."""

BROKEN = 3
"""The exit code of a child that could not do what it was to do."""

_POLL = 0.02


def run(child: Callable[[], int], seconds: float) -> int | None:
    """The exit code of what a forked child does, ``None`` where it had not ended after so many seconds."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            os.setpgid(0, 0)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = child()
        finally:
            os._exit(code)
    patience = time.monotonic() + seconds
    while time.monotonic() < patience:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL)
    os.killpg(pid, signal.SIGKILL)  # its own group: the workers of a test go with it
    os.waitpid(pid, 0)
    return None


def test_mutant(mutant: Mutant, tests: Sequence[str], folder: Path) -> int:
    """Run the tests over the mutant, in a folder for their files; 0 where none of them notices it."""
    _install(mutant)
    return int(pytest.main([*tests, *QUIET, f"--basetemp={folder}"]))


test_mutant.__test__ = False  # type: ignore[attr-defined]  # it is not one, for all its name


def _install(mutant: Mutant) -> None:
    """Have the import system read the mutant in place of its module."""
    loader = importlib.machinery.SourceFileLoader
    get_code = loader.get_code

    def read(self: importlib.machinery.SourceFileLoader, fullname: str) -> types.CodeType | None:
        if fullname != mutant.module:
            return get_code(self, fullname)
        code: types.CodeType = compile(mutant.source, str(Path(self.get_filename(fullname))), "exec", dont_inherit=True)
        return code

    loader.get_code = read  # type: ignore[assignment]  # for this child only
