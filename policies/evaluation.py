"""Evaluating conditions: those that look at the same facts together, and once for all facts that they tell not apart.

A call into the library costs more than most conditions do.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf, prod
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from cel_expr_python import cel

from .conditions import VARIABLES, Condition, Situation, join
from .memory import Memory

_REMEMBERED = 4096
_MOST_COMBINATIONS = 256
_MOST_GROUPS = 16
_COUNTLESS = (cel.Type.INT, cel.Type.DURATION)
_USUAL = 4


class Outcomes(NamedTuple):
    """Which conditions hold, and which could not be evaluated: bit n stands for condition n. The rest do not hold."""

    held: int
    failed: int


class ConditionSet:
    """All conditions of a policy. Those that look at the same facts are evaluated together."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self.reads = tuple(sorted({name for condition in conditions for name in condition.reads}))
        """The variables that some condition looks at."""
        # The last two are there so that the result is a tuple, however few names there are.
        self._read = attrgetter(*[VARIABLES[name].path for name in self.reads], "facts", "facts")
        bounds = {name: _bounds(_compared_with(name, conditions)) for name in self.reads}
        self._bounds = tuple((at, bounds[name]) for at, name in enumerate(self.reads) if bounds[name])
        sizes = {name: _size(name, bounds[name]) for name in self.reads}
        groups = [_Group(self.reads, at, [conditions[each] for each in at]) for at in _together(conditions, sizes)]
        self._groups = [(group.told_apart_by, group.remembered, group) for group in groups]
        self._remembered = Memory[tuple[Any, ...], Outcomes](_REMEMBERED)

    @property
    def reads_data_class(self) -> bool:
        """Whether any condition looks at the one class, rather than at the list of them."""
        return "request.data_class" in self.reads

    def outcomes(self, situation: Situation) -> Outcomes:
        """Which conditions hold, and which failed."""
        values = self._read(situation)[:-2]
        cells = list(values)
        for at, within in self._bounds:
            cells[at] = bisect(within, values[at])
        key = tuple(cells)
        known = self._remembered.get(key)
        if known is None:
            known = self._remembered.keep(key, self._of_groups(values, key))
        return known

    def _of_groups(self, values: Sequence[Any], cells: Sequence[Any]) -> Outcomes:
        held = failed = 0
        for told_apart_by, remembered, group in self._groups:
            found = remembered.get(told_apart_by(cells)) or group.outcomes(values, cells)
            held |= found[0]
            failed |= found[1]
        return Outcomes(held, failed)


class _Group:
    """Conditions that are evaluated together, and once for all facts that they cannot tell apart.

    ``names`` are the variables that any condition of the policy reads, ``positions`` say where these conditions stand.
    """

    def __init__(self, names: Sequence[str], positions: Sequence[int], conditions: Sequence[Condition]) -> None:
        self._positions = positions
        self._conditions = conditions
        self._reads = tuple(
            (at, name, VARIABLES[name].convert)
            for at, name in enumerate(names)
            if any(name in condition.reads for condition in self._conditions)
        )
        self._joined = join(self._conditions)
        self.told_apart_by: Callable[[Sequence[Any]], Hashable] = (
            itemgetter(*[at for at, _, _ in self._reads]) if self._reads else lambda _: None
        )
        """The part of all variables' values that these conditions look at."""
        self.remembered = Memory[Hashable, Outcomes](_REMEMBERED)

    def outcomes(self, values: Sequence[Any], cells: Sequence[Any]) -> Outcomes:
        """Which of these hold, and which failed: evaluated anew and remembered."""
        held = failed = 0
        for at, holds in zip(self._positions, self._evaluate(values), strict=True):
            held |= (holds is True) << at
            failed |= (holds is None) << at
        return self.remembered.keep(self.told_apart_by(cells), Outcomes(held, failed))

    def _evaluate(self, values: Sequence[Any]) -> Sequence[bool | None]:
        data = {name: values[at] if convert is None else convert(values[at]) for at, name, convert in self._reads}
        if self._joined is not None:
            results = self._joined.eval(data=data).plain_value()
            # One error poisons the whole list: its value is then a text.
            if isinstance(results, list):
                return results
        return [condition.outcome(data) for condition in self._conditions]


def _together(conditions: Sequence[Condition], sizes: Mapping[str, float]) -> list[list[int]]:
    """Positions of the conditions that are evaluated together: such that what they read has few combinations.

    ``sizes`` is how many values of each variable they can tell apart. Each condition goes where most of its variables
    are. Every group takes its time, however few conditions it has: beyond so many, the last takes the rest.
    """
    groups: list[tuple[set[str], list[int]]] = []
    for at, condition in enumerate(conditions):
        reads = set(condition.reads)
        fitting = [
            (len(reads & names), -number)
            for number, (names, _) in enumerate(groups)
            if reads <= names or prod(sizes[name] for name in names | reads) <= _MOST_COMBINATIONS
        ]
        if not fitting and len(groups) < _MOST_GROUPS:
            groups.append((reads, [at]))
            continue
        names, positions = groups[-max(fitting)[1] if fitting else -1]
        names |= reads
        positions.append(at)
    return [positions for _, positions in groups]


def _size(name: str, bounds: Sequence[int]) -> float:
    """How many values of a variable conditions can tell apart; where that cannot be known, as many as are usual."""
    variable = VARIABLES[name]
    if bounds:
        return len(bounds) + 1
    if variable.type in _COUNTLESS:
        return inf
    return len(variable.values) if variable.values is not None else _USUAL


def _compared_with(name: str, conditions: Sequence[Condition]) -> list[int]:
    """All numbers that the conditions compare this variable with; empty if one of them looks at it otherwise."""
    found: set[int] = set()
    for condition in conditions:
        if name in condition.reads:
            numbers = condition.reads[name]
            if numbers is None:
                return []
            found |= numbers
    return sorted(found)


def _bounds(numbers: Sequence[int]) -> list[int]:
    """The whole numbers at which something new begins: between two neighbours all are alike."""
    return sorted({bound for number in numbers for bound in (number, number + 1)})
