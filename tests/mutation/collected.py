"""Tests that were imported and collected once, and run in a fork of that process over each mutant.

That is good for mutants of functions that have not run when the tests are collected: their code alone is exchanged.
"""

from __future__ import annotations

import ast
import gc
import inspect
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from .in_child import BROKEN, QUIET, run
from .mutants import Mutant

Asked = tuple[Mutant | None, Sequence[str], float]


class CollectedTests:
    """A process with the tests collected. ``folder`` is for their files."""

    def __init__(self, tests: Sequence[str], folder: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._wire, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(tests, folder, self._wire, other_end))
        self._process.start()
        other_end.close()

    def run(self, mutant: Mutant | None, tests: Sequence[str], seconds: float) -> int | None:
        """The exit code of these tests over a mutant, 0 where none notices it; ``None`` where they had not ended."""
        asked: Asked = mutant, tests, seconds
        self._wire.send(asked)
        code: int | None = self._wire.recv()
        if code == BROKEN:
            raise SystemExit(f"the tests could not be run over {mutant and (mutant.module, mutant.was, mutant.now)}")
        return code

    def close(self) -> None:
        """End the process."""
        self._wire.close()
        self._process.join()


def body_around(source: str, line: int) -> range | None:
    """The lines of the body of the outermost function that a line stands in; ``None`` where it is in none."""
    level = ast.parse(source).body
    while True:
        around = next((each for each in level if each.lineno <= line <= (each.end_lineno or each.lineno)), None)
        if isinstance(around, ast.FunctionDef | ast.AsyncFunctionDef):
            body = range(around.body[0].lineno, (around.end_lineno or around.lineno) + 1)
            return body if line in body else None
        if not isinstance(around, ast.ClassDef):
            return None
        level = around.body


class _Loop:
    """In place of pytest's own loop over the tests that it collected."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        while True:
            try:
                asked: Asked = self._wire.recv()
            except EOFError:
                return True
            mutant, names, seconds = asked
            chosen = [items[name] for name in names]
            self._wire.send(run(partial(_try, session, chosen, mutant), seconds))


def _serve(tests: Sequence[str], folder: Path, other_end: Connection, wire: Connection) -> None:
    other_end.close()  # its copy here: else the wire would never end
    with open(os.devnull, "wb") as quiet:
        os.dup2(quiet.fileno(), 1)
    pytest.main([*tests, *QUIET, f"--basetemp={folder}"], plugins=[_Loop(wire)])


def _try(session: pytest.Session, items: Sequence[pytest.Item], mutant: Mutant | None) -> int:
    if mutant is not None:
        _exchange(mutant)
    for at, item in enumerate(items):
        following = items[at + 1] if at + 1 < len(items) else None
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except (KeyboardInterrupt, pytest.exit.Exception):
            return 1
        if session.testsfailed:
            return 1
    return 0


def _exchange(mutant: Mutant) -> None:
    """Give the functions of the module the code that they have in the mutant."""
    file = inspect.getfile(sys.modules[mutant.module])
    was, now = (
        _functions(compile(source, file, "exec", dont_inherit=True))
        for source in (Path(file).read_text("utf-8"), mutant.source)
    )
    changed = {_key(old): new for old, new in zip(was, now, strict=True) if old != new}
    exchanged = 0
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and _key(each.__code__) in changed:
            each.__code__ = changed[_key(each.__code__)]
            exchanged += 1
    if not exchanged:
        raise LookupError(f"{mutant.module} has no function to exchange for line {mutant.line}")


def _functions(code: CodeType) -> Iterator[CodeType]:
    """The outermost functions, those of classes among them."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & inspect.CO_OPTIMIZED:
                yield each
            else:
                yield from _functions(each)


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno
