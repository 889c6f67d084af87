"""Mutation testing: ``make mutate SHARE=5 PART=policies``. Writes the part's section of docs/mutation.md.

A mutant is a module with one small wrong change. Those tests run over it that run the changed line, the quickest
first; it is killed if one of them fails, or none has ended after three times as long as usual.

Importing and collecting takes far longer than most tests do. So where the change is in a function that no import runs,
a process that has collected the tests forks, and exchanges the function. Else a child imports edgewise anew.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from .collected import CollectedTests, body_around
from .in_child import run, test_mutant
from .mutants import Mutant, spots
from .reach import Reach, load, record
from .report import write

ROOT = Path(__file__).parents[2]

_MOST_TESTS = 0.25
"""So much of what all tests take a mutant gets: a share, so that a busy machine tries no fewer than an idle one."""

_PATIENCE = 20.0


class End(Enum):
    """How a mutant ends: a test fails, or none has ended in time, or all pass."""

    FAILS = "fail"
    HANGS = "hang"
    SURVIVES = "survive"


@dataclass(frozen=True, slots=True)
class Part:
    """What is mutated, and the tests that may notice. ``aim`` is the share of mutants to be killed, in per cent."""

    package: str
    folder: str
    tests: tuple[str, ...]
    aim: int


PARTS = {
    # The two left out take most of the time: one is a campaign of its own, one kills processes.
    "execution": Part(
        "edgewise.router.execution",
        "router/execution",
        ("tests/router", "--ignore=tests/router/test_outages.py", "--ignore=tests/router/test_state_file.py"),
        85,
    ),
    # What explains, proves, compares and replays a policy is tested through its commands.
    "policies": Part(
        "edgewise.policies",
        "policies",
        (
            "tests/policies",
            "tests/config",
            "--ignore=tests/config/test_hostile_files.py",  # reads them in processes of its own, which see no mutant
            "tests/cli/test_cli_policy.py",
            "tests/cli/test_cli_policy_replay.py",
            "tests/cli/test_cli_policy_page.py",
            "tests/cli/test_documentation.py::test_the_reference_has_every_key_as_it_is_read",
        ),
        90,
    ),
}


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="both, if absent")
    parser.add_argument("--share", type=float, default=100.0, help="per cent of the mutants, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after so long, with what there is by then")
    asked = parser.parse_args()
    # A test that fails need not say by how little, nor how else; and none fails because the machine is busy.
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")
    for name in asked.part or PARTS:
        _run_part(name, PARTS[name], asked.share, asked.seed, asked.minutes)
    return 0


def _run_part(name: str, part: Part, share: float, seed: int, minutes: float) -> None:
    until = time.monotonic() + minutes * 60.0
    every = [spot for path in sorted((ROOT / part.folder).glob("*.py")) for spot in spots(_module(part, path), path)]
    drawn = random.Random(seed).sample(every, max(1, round(len(every) * share / 100.0)))
    ends: Counter[End] = Counter()
    tried: list[Mutant] = []
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(_Trials(part, Path(folder))) as trials:
        trials.try_without()
        for spot in drawn:
            if time.monotonic() > until:
                break
            mutant = spot.mutant()
            if mutant is None:
                continue
            end = trials.end(mutant)
            ends[end] += 1
            tried.append(mutant)
            if end is End.SURVIVES:
                survivors.append(mutant)
                print(
                    f"survives: {mutant.module}:{mutant.line} {mutant.operator}\n  - {mutant.was}\n  + {mutant.now}",
                    flush=True,
                )
            counts = ", ".join(f"{ends[each]} {each.value}" for each in End)
            print(f"{name}: {len(tried)}/{len(drawn)}, {counts}", file=sys.stderr)
    write(ROOT / "docs" / "mutation.md", name, part.aim, len(every), tried, survivors, ends[End.HANGS])


def _module(part: Part, path: Path) -> str:
    return part.package if path.stem == "__init__" else f"{part.package}.{path.stem}"


class _Trials:
    """Tries mutants of a part, whose tests have passed once without one."""

    def __init__(self, part: Part, folder: Path) -> None:
        self._part = part
        self._folder = folder
        self._reach = self._record()
        self._most_seconds = _MOST_TESTS * sum(self._reach.seconds.values())
        for module in self._reach.foreign:  # once, before the forks
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        self._collected = CollectedTests(part.tests, folder / "collected")

    def _record(self) -> Reach:
        into = self._folder / "reach.json"
        tests, package = self._part.tests, self._part.package
        code = run(partial(record, [package], tests, self._folder / "recorded", into), seconds=3600.0)
        if code != 0:
            raise SystemExit(f"the tests must pass before anything is mutated; pytest ended with {code}")
        return load(into)

    def try_without(self) -> None:
        """Hold the tests to passing without a mutant, as they are run over one: in a fork, the quickest first."""
        seconds = self._reach.seconds
        if self._collected.run(None, sorted(seconds, key=seconds.__getitem__), seconds=3600.0) != 0:
            raise SystemExit("a test fails without a mutant where the tests are run in the order of their speed")

    def end(self, mutant: Mutant) -> End:
        """What the tests make of a mutant."""
        path = _path(self._part, mutant)
        body = body_around(path.read_text("utf-8"), mutant.line)
        tests = self._chosen(self._reach.of(path.name, mutant.line, body))
        if not tests:
            return End.SURVIVES
        seconds = _PATIENCE + 3.0 * sum(self._reach.seconds[each] for each in tests)
        if body is not None and not self._reach.runs_at_import(path.name, body):
            code = self._collected.run(mutant, tests, seconds)
        else:
            code = run(partial(test_mutant, mutant, tests, self._folder / "imported"), seconds)
        if code is None:
            return End.HANGS
        return End.FAILS if code else End.SURVIVES

    def _chosen(self, tests: Sequence[str]) -> Sequence[str]:
        """As many as fit into the time, and one at least."""
        left = self._most_seconds
        for number, name in enumerate(tests):
            left -= self._reach.seconds[name]
            if left < 0:
                return tests[: max(1, number)]
        return tests

    def close(self) -> None:
        """End what was started."""
        self._collected.close()


def _path(part: Part, mutant: Mutant) -> Path:
    return ROOT / part.folder / f"{mutant.module.removeprefix(part.package).removeprefix('.') or '__init__'}.py"


if __name__ == "__main__":
    sys.exit(main())
