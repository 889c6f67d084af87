"""Which tests run which lines, and how long each takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

_AT_IMPORT = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """``tests`` holds, by file and line, the tests that run it; ``seconds`` how long each test takes."""

    tests: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def of(self, file: str, line: int, most_seconds: float) -> list[str]:
        """The tests that run a line, the quickest first, as many as fit into the time, and one at least."""
        lines = self.tests.get(file, {})
        names = lines.get(line)
        if not names:  # a constant or a signature, which runs at import: whoever uses the module may notice
            names = [name for each in lines.values() for name in each]
        ordered = sorted(set(names), key=lambda name: self.seconds.get(name, 0.0))
        chosen: list[str] = []
        for name in ordered:
            most_seconds -= self.seconds.get(name, 0.0)
            if most_seconds < 0 and chosen:
                break
            chosen.append(name)
        return chosen


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


def record(packages: Sequence[str], tests: Sequence[str], into: Path) -> int:
    """Run the tests once and write what they reach to a file. For a child process; returns pytest's exit code."""
    recording = coverage.Coverage(data_file=None, source_pkgs=list(packages))
    recorder = _Recorder(recording)
    recording.start()
    code = pytest.main([*tests, "-q", "-p", "no:cacheprovider"], plugins=[recorder])
    recording.stop()
    data = recording.get_data()
    reached = {
        file: {line: [name for name in names if name] for line, names in data.contexts_by_lineno(file).items()}
        for file in data.measured_files()
    }
    into.write_text(json.dumps({"tests": reached, "seconds": recorder.seconds}), "utf-8")
    return int(code)


def load(path: Path) -> Reach:
    """What `record` has written."""
    stored = json.loads(path.read_text("utf-8"))
    tests = {
        Path(file).name: {int(line): names for line, names in lines.items()} for file, lines in stored["tests"].items()
    }
    return Reach(tests, stored["seconds"])
