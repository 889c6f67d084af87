"""Mutation testing: ``make mutate SHARE=5 PART=policies``. Writes the part's section of docs/mutation.md.

A mutant is a module with one small wrong change. Those tests run over it that run the changed line, the quickest
first; it is killed if one of them fails, or none has ended after three times as long as usual.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .in_child import run, test_mutant
from .mutants import Mutant, mutants
from .reach import Reach, load, record
from .report import write

ROOT = Path(__file__).parents[2]

_PRELOADED = ("asyncio", "hypothesis", "numpy", "pytest_asyncio", "tenacity", "yaml")
"""Imported once, before the forks. Nothing of edgewise, which each child imports with its mutant in it."""

_MOST_TESTS = 0.25
"""So much of what all tests take a mutant gets: a share, so that a busy machine tries no fewer than an idle one."""


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
        ("tests/policies", "tests/config", "tests/cli/test_cli_policy.py", "tests/cli/test_cli_policy_replay.py"),
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
    for module in _PRELOADED:
        importlib.import_module(module)
    for name in asked.part or PARTS:
        _run_part(name, PARTS[name], asked.share, asked.seed, asked.minutes)
    return 0


def _run_part(name: str, part: Part, share: float, seed: int, minutes: float) -> None:
    until = time.monotonic() + minutes * 60.0
    reach = _reach(part)
    every = [
        mutant
        for path in sorted((ROOT / part.folder).glob("*.py"))
        for mutant in mutants(f"{part.package}.{path.stem}", path)
    ]
    drawn = random.Random(seed).sample(every, max(1, round(len(every) * share / 100.0)))
    ends: Counter[End] = Counter()
    survivors: list[Mutant] = []
    for number, mutant in enumerate(drawn):
        if time.monotonic() > until:
            drawn = drawn[:number]
            break
        end = _end(mutant, reach)
        ends[end] += 1
        if end is End.SURVIVES:
            survivors.append(mutant)
            print(
                f"survives: {mutant.module}:{mutant.line} {mutant.operator}\n  - {mutant.was}\n  + {mutant.now}",
                flush=True,
            )
        counts = ", ".join(f"{ends[each]} {each.value}" for each in End)
        print(f"{name}: {number + 1}/{len(drawn)}, {counts}", file=sys.stderr)
    write(ROOT / "docs" / "mutation.md", name, part.aim, len(every), drawn, survivors, ends[End.HANGS])


def _reach(part: Part) -> Reach:
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "reach.json"
        code = run(lambda: record([part.package], part.tests, into), seconds=3600.0)
        if code != 0:
            raise SystemExit(f"the tests must pass before anything is mutated; pytest ended with {code}")
        return load(into)


def _end(mutant: Mutant, reach: Reach) -> End:
    file = f"{mutant.module.rsplit('.', 1)[1]}.py"
    tests: Sequence[str] = reach.of(file, mutant.line, _MOST_TESTS * sum(reach.seconds.values()))
    if not tests:
        return End.SURVIVES
    usual = sum(reach.seconds[each] for each in tests)
    code = run(lambda: test_mutant(mutant, tests), seconds=30.0 + 3.0 * usual)
    if code is None:
        return End.HANGS
    return End.FAILS if code else End.SURVIVES


if __name__ == "__main__":
    sys.exit(main())
