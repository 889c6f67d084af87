"""Which tests run which lines, which lines run at import, and how long each test takes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

from .in_child import QUIET

_AT_IMPORT = ""
_MUTATED_OR_MUTATING = frozenset({"edgewise", "tests", "__main__", "__mp_main__"})


@dataclass(frozen=True, slots=True)
class Reach:
    """``tests`` holds, by file and line, the tests that run it, ``seconds`` how long each test takes.

    ``at_import`` are the lines of each file that run before any test does; ``foreign`` all modules that the tests need
    and that are not edgewise's.
    """

    tests: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]
    at_import: dict[str, frozenset[int]]
    foreign: tuple[str, ...]

    def of(self, file: str, line: int, body: range | None) -> list[str]:
        """The tests that run a line, the quickest first.

        Of a line that goes on with the one before, those that run any line of the function's ``body``. What stands in
        no function (``None``) takes effect wherever it is used: all of them.
        """
        lines = self.tests.get(file, {})
        names = set(lines.get(line, ())) or {name for each in body or () for name in lines.get(each, ())}
        return sorted(names if body else self.seconds, key=lambda name: (self.seconds[name], name))

    def runs_at_import(self, file: str, lines: range) -> bool:
        """Whether one of the lines does."""
        return not self.at_import.get(file, frozenset()).isdisjoint(lines)


class _Recorder:
    def __init__(self, recording: coverage.Coverage) -> None:
        self._recording = recording
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._recording.switch_context(item.nodeid)
        begun = time.perf_counter()
        yield
        self.seconds[item.nodeid] = time.perf_counter() - begun
        self._recording.switch_context(_AT_IMPORT)


def record(packages: Sequence[str], tests: Sequence[str], folder: Path, into: Path) -> int:
    """Run the tests once and write what they reach to a file. For a child process; returns pytest's exit code."""
    recording = coverage.Coverage(data_file=None, source_pkgs=list(packages))
    recorder = _Recorder(recording)
    recording.start()
    code = pytest.main([*tests, *QUIET, f"--basetemp={folder}"], plugins=[recorder])
    recording.stop()
    data = recording.get_data()
    contexts = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    told = {
        "tests": {
            file: {line: [name for name in names if name != _AT_IMPORT] for line, names in lines.items()}
            for file, lines in contexts.items()
        },
        "seconds": recorder.seconds,
        "at_import": {
            file: [line for line, names in lines.items() if _AT_IMPORT in names] for file, lines in contexts.items()
        },
        "foreign": sorted(name for name in sys.modules if name.partition(".")[0] not in _MUTATED_OR_MUTATING),
    }
    into.write_text(json.dumps(told), "utf-8")
    return int(code)


def load(path: Path) -> Reach:
    """What `record` has written."""
    told = json.loads(path.read_text("utf-8"))
    return Reach(
        {Path(file).name: {int(line): names for line, names in lines.items()} for file, lines in told["tests"].items()},
        told["seconds"],
        {Path(file).name: frozenset(lines) for file, lines in told["at_import"].items()},
        tuple(told["foreign"]),
    )
