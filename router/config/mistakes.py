"""Which mistakes stand for themselves, and which only follow from others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ...core.problem import Path, Problem, Severity


def bears_on(mistake: Path, place: Path) -> bool:
    """Whether a mistake at one place says something of another: one of them holds the other."""
    shorter = min(len(mistake), len(place))
    return mistake[:shorter] == place[:shorter]


def independent(problems: Sequence[Problem], unread: Collection[Path]) -> list[Problem]:
    """The problems that would be there if everything that could not be read were right.

    What was judged at an unread place was judged of a stand-in; what rests on a mistaken place falls with it.
    """
    wrong = {each.path for each in problems if each.severity is Severity.ERROR}
    return [each for each in problems if not _is_of_a_stand_in(each, unread) and not _follows(each, unread, wrong)]


def _is_of_a_stand_in(problem: Problem, unread: Collection[Path]) -> bool:
    return any(problem.path[:length] in unread for length in range(1, len(problem.path) + 1))


def _follows(problem: Problem, unread: Collection[Path], wrong: Collection[Path]) -> bool:
    return any(
        any(bears_on(mistake, place) for mistake in unread) or any(path[: len(place)] == place for path in wrong)
        for place in problem.rests_on
    )
