"""A mistake in a configuration, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error keeps the configuration from being used; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a file: line and column count from 1; ``excerpt`` is that line's text, secrets never in it.

    ``caret`` is the column within the excerpt, where that was shortened; 0 means the column itself.
    """

    file: str
    line: int
    column: int
    excerpt: str = ""
    caret: int = 0


Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what is wrong, and what would be right.

    ``path`` names the place by keys and indices (``('policy', 'rules', 0, 'when')``) for whoever judges
    values without knowing the file; whoever read the file adds ``position``. ``offset`` counts characters
    into a scalar, for mistakes inside an expression. ``rests_on`` are the other places that it was concluded
    from, counted as ``path`` is: where one of them is mistaken itself, this problem says nothing.
    """

    sentence: str
    mend: str
    path: Path = ()
    severity: Severity = Severity.ERROR
    position: Position | None = None
    offset: int = 0
    rests_on: tuple[Path, ...] = ()

    def render(self) -> str:
        """The problem as people read it: file:line:column, the sentence, the line with a caret, the mend."""
        if self.position is None:
            where = ".".join(map(str, self.path)) or "configuration"
            return f"{where}: {self.severity}: {self.sentence}\n  mend: {self.mend}"
        at = self.position
        lines = [f"{at.file}:{at.line}:{at.column}: {self.severity}: {self.sentence}"]
        if at.excerpt:
            lines += [f"  {at.excerpt}", "  " + " " * ((at.caret or at.column) - 1) + "^"]
        lines.append(f"  mend: {self.mend}")
        return "\n".join(lines)


def render_problems(problems: Sequence[Problem]) -> str:
    """All problems, one after the other, with their count at the end."""
    counts = []
    for severity in Severity:
        count = sum(problem.severity is severity for problem in problems)
        if count:
            counts.append(f"{count} {severity}" + ("" if count == 1 else "s"))
    return "\n".join([*(problem.render() for problem in problems), ", ".join(counts)])
