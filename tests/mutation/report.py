"""Writes what a campaign found to ``docs/mutation.md``, one section a part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .mutants import Mutant

_HEAD = """# Mutation testing

`make mutate` changes one small thing in a module (a comparison, a sign, a number, a condition), runs the tests that run
that line, and counts how often one of them fails. `SHARE=5` draws five per cent of the mutants, `PART=policies` one
part, `MINUTES=10` stops after so long. The operators are cosmic-ray's. This file is written by the run.

The tests are collected once. A mutant of a function is then exchanged in a fork, and a test that notices it has mostly
failed after a fifth of a second. One that survives takes as long as a quarter of all the part's tests.
"""


def write(
    path: Path, part: str, aim: int, every: int, drawn: Sequence[Mutant], survivors: Sequence[Mutant], hanging: int
) -> None:
    """Replace a part's section of the file. ``hanging`` of those killed let no test end in time."""
    text = path.read_text("utf-8") if path.exists() else _HEAD
    section = _section(part, aim, every, drawn, survivors, hanging)
    pattern = re.compile(rf"\n## {re.escape(part)}\n.*?(?=\n## |\Z)", re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else text + section
    path.write_text(text, "utf-8")


def _section(
    part: str, aim: int, every: int, drawn: Sequence[Mutant], survivors: Sequence[Mutant], hanging: int
) -> str:
    killed = len(drawn) - len(survivors)
    lines = [
        f"\n## {part}\n",
        f"{killed} of {len(drawn)} mutants killed ({killed / len(drawn):.0%}; the aim is {aim} %),",
    ]
    lines += [f"drawn from {every}.\n", "| module | mutants | killed |", "| --- | --- | --- |"]
    tried, alive = Counter(each.module for each in drawn), Counter(each.module for each in survivors)
    lines += [f"| {_short(module)} | {count} | {count - alive[module]} |" for module, count in sorted(tried.items())]
    if survivors:
        lines += ["\nSurvivors:\n"]
        lines += [
            f"* `{_short(each.module)}:{each.line}` {each.operator}: `{each.was}` → `{each.now}`"
            for each in sorted(survivors, key=lambda each: (each.module, each.line))
        ]
    return "\n".join(lines) + "\n"


def _short(module: str) -> str:
    return module.removeprefix("edgewise.").replace(".", "/")
