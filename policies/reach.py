"""How far content of a class can ever go: the proof behind assertions, `edgewise policy prove` and its kin.

Walls are exact. Of the rules, those that refuse are taken with every comparison of a fact free, so that 'never' is
certain, and 'possible' comes with what would have to hold. Fallbacks, retries, hedges, continuations and replays need
no word of their own: each goes to a backend that a plan of the policy granted, and a plan grants what is possible here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .conditions import Condition
from .expression import read_tree
from .facts import BackendTerms
from .formula import Assignment, Effort, Formula, looks_at_one_class, membership, read_formula, solve
from .rules import Rule
from .walls import Walls

_MOST_TOLD = 12
"""Comparisons that an example names."""


class Reach:
    """What a policy can grant. Backends are named by their positions among ``terms``."""

    def __init__(
        self, walls: Walls, terms: Sequence[BackendTerms], rules: Sequence[Rule], conditions: Sequence[Condition]
    ) -> None:
        self._walls = walls
        self._terms = tuple(terms)
        self._rules = tuple(rules)
        self._examples: dict[tuple[int, frozenset[str]], Assignment | None] = {}
        self._never_there: dict[int, Assignment] = {}
        names = tuple(walls.by_class) or ("",)
        trees = [read_tree(condition.program.serialize()) for condition in conditions]
        alike = [None if looks_at_one_class(tree) else read_formula(tree, "") for tree in trees]
        self._formulas: Mapping[str, list[Formula]] = {
            name: [read_formula(tree, name) if same is None else same for tree, same in zip(trees, alike, strict=True)]
            for name in names
        }

    def objection(self, at: int, classes: Collection[str]) -> str | None:
        """Why a request of these classes, and perhaps of more, can never go to a backend; ``None`` if it may."""
        by_wall = self._walls.objection(sorted(classes), None, self._terms[at].location)
        if by_wall is not None:
            return by_wall
        if self.example(at, classes) is not None:
            return None
        always = next((rule.name for rule in self._refusing(at) if rule.condition is None), None)
        if always is not None:
            return f"rule {always!r} always refuses it"
        return "rules refuse it whatever the facts: " + ", ".join(repr(rule.name) for rule in self._refusing(at))

    def example(
        self, at: int, classes: Collection[str], rule: Rule | None = None, effort: Effort | None = None
    ) -> Assignment | None:
        """What would have to hold for a request of these classes, and perhaps of more, to be granted a backend.

        With ``rule``: and for this rule to match too. ``None`` where that can never be; empty where nothing need hold.
        ``effort`` is shared by many such questions: once it is spent, the answer is that it may be.
        """
        location = self._terms[at].location
        if self._walls.objection(sorted(classes), None, location) is not None:
            return None
        if rule is not None:
            return self._solved(at, classes, rule, effort)
        key = at, frozenset(classes)
        if key not in self._examples:
            self._examples[key] = self._solved(at, classes, None, effort)
        return self._examples[key]

    def _solved(self, at: int, classes: Collection[str], rule: Rule | None, effort: Effort | None) -> Assignment | None:
        fixed = {**self._closed(at), **{membership(name): True for name in classes}}
        wanted: list[tuple[Formula, bool]] = []
        for refusing in self._refusing(at):
            if refusing.condition is None:
                return None
            # A request of several classes is judged as each of them: refused as one is refused.
            wanted += [(self._formulas[name][refusing.condition], False) for name in classes or ("",)]
        if rule is None or rule.condition is None:
            found = solve(wanted, fixed, effort)
        else:
            matches = [(self._formulas[name][rule.condition], True) for name in classes or ("",)]
            solved = (solve([match, *wanted], fixed, effort) for match in matches)
            found = next((each for each in solved if each is not None), None)
        return None if found is None else {text: value for text, value in found.items() if text not in fixed}

    def freed(self, at: int, classes: Collection[str], old: Reach, before: int) -> tuple[str, Assignment] | None:
        """A rule of ``old`` that refused a backend where this policy no longer does, and where that would be.

        Both policies' walls and this one's rules permit the backend to these classes; ``before`` is its position there.
        """
        fixed = {**self._closed(at), **{membership(name): True for name in classes}}
        wanted = [
            (self._formulas[name][rule.condition], False)
            for rule in self._refusing(at)
            if rule.condition is not None
            for name in classes or ("",)
        ]
        kept = {rule.settings.when for rule in self._refusing(at)}
        for rule in old._refusing(before):
            if rule.condition is None or rule.settings.when in kept:
                continue
            for name in classes or ("",):
                found = solve([(old._formulas[name][rule.condition], True), *wanted], fixed)
                if found is not None:
                    return rule.name, {text: value for text, value in found.items() if text not in fixed}
        return None

    def may_refuse(self, at: int) -> bool:
        """Whether some rule could take a backend away."""
        return bool(self._refusing(at))

    def constant(self, rule: Rule) -> bool | None:
        """The value of a rule's condition where it is the same for all facts; ``None`` if it is not."""
        if rule.condition is None:
            return None
        formulas = {id(each[rule.condition]): each[rule.condition] for each in self._formulas.values()}.values()
        possible = {
            value for value in (True, False) if any(solve([(each, value)], {}) is not None for each in formulas)
        }
        return possible.pop() if len(possible) == 1 else None

    def _closed(self, at: int) -> Assignment:
        """That no class is among the request's whose wall keeps it from a backend."""
        if at not in self._never_there:
            location = self._terms[at].location
            closed = [name for name in self._walls.by_class if self._walls.objection((name,), None, location)]
            self._never_there[at] = {membership(name): False for name in closed}
        return self._never_there[at]

    def _refusing(self, at: int) -> list[Rule]:
        return [rule for rule in self._rules if at in rule.deny or (rule.only is not None and at not in rule.only)]


def describe(assignment: Assignment) -> str:
    """What would have to hold, in words; empty for nothing."""
    parts = [text if value else f"not ({text})" for text, value in assignment.items()]
    more = f" and {len(parts) - _MOST_TOLD} more" if len(parts) > _MOST_TOLD else ""
    return " and ".join(parts[:_MOST_TOLD]) + more
