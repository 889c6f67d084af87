"""What a run against the real servers came to, written into docs/protocols.md by the run itself."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from .servers import environment_of

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
_TABLE = re.compile(r"(?<=<!-- real servers -->\n).*?(?=<!-- end of real servers -->)", re.DOTALL)


@dataclass(frozen=True)
class Tested:
    """A server or a client of somebody else's: its title, where it is installed, and by which packages."""

    title: str
    environment: str
    packages: tuple[str, ...]

    def version(self) -> str:
        """As its environment has it."""
        code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
        python = environment_of(self.environment) / "bin" / "python"
        return subprocess.run(
            [python, "-c", code, *self.packages], check=True, capture_output=True, text=True
        ).stdout.strip()


TESTED: Mapping[str, Tested] = {
    "mlserver": Tested("MLServer", "EDGEWISE_MLSERVER", ("mlserver",)),
    "triton": Tested("Triton, Python backend, tensors of its vLLM backend", "EDGEWISE_TRITON", ("nvidia-pytriton",)),
    "kserve": Tested("KServe's model server", "EDGEWISE_KSERVE", ("kserve",)),
    "llama": Tested("llama.cpp's server, OpenAI's API, SmolLM2", "EDGEWISE_LLAMA_SERVER", ("llama-cpp-python",)),
    "google": Tested(
        "Google's clients, beside ours against our test server",
        "EDGEWISE_GOOGLE",
        ("google-ai-generativelanguage", "google-cloud-aiplatform"),
    ),
    "tritonclient": Tested("Triton's client against `edgewise serve`", "EDGEWISE_TRITONCLIENT", ("tritonclient",)),
}


def tested_by(item: pytest.Item) -> str:
    """Which of them a test is about: its class says so, or its module, or the server that it is given."""
    for place in (getattr(item, "cls", None), getattr(item, "module", None)):
        if (named := getattr(place, "server", None)) in TESTED:
            return str(named)
    (given,) = TESTED.keys() & set(getattr(item, "fixturenames", ()))
    return given


@dataclass
class Results:
    """How many tests passed and failed, and why others were skipped, for each of them."""

    passed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, report: pytest.TestReport) -> None:
        """Take note of one step of a test."""
        named = dict(report.user_properties).get("server")
        if named is None:
            return
        server = str(named)
        if report.skipped:
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped.setdefault(server, Counter())[reason.removeprefix("Skipped: ")] += 1
        elif report.failed:
            self.failed[server] += 1
        elif report.when == "call":
            self.passed[server] += 1

    def write(self, day: str, seconds: float) -> None:
        """Replace the page's table."""
        lines = [
            f"By hand on {day}, on two cores, in {seconds:.0f} s:",
            "",
            "| server or client | version | passed | failed | skipped |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, tested in TESTED.items():
            why = "; ".join(f"{count} × {reason}" for reason, count in sorted(self.skipped.get(name, {}).items()))
            row = (tested.title, tested.version(), self.passed[name], self.failed[name], why or "–")
            lines.append("| " + " | ".join(map(str, row)) + " |")
        page, count = _TABLE.subn(lambda match: "\n".join(lines) + "\n", PAGE.read_text(encoding="utf-8"))
        assert count == 1, "the page has one place for the table"
        PAGE.write_text(page, encoding="utf-8")


class Recorder:
    """Writes the results of a run when it has ended."""

    def __init__(self) -> None:
        self._results = Results()
        self._began = time.monotonic()

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.user_properties.append(("server", tested_by(item)))

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._results.add(report)

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        self._results.write(datetime.now().date().strftime("%-d %B %Y"), time.monotonic() - self._began)
