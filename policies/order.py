"""The order of permitted backends, and why each stands where it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from operator import attrgetter
from typing import NamedTuple

from ..core.request import Labels
from .facts import BackendTerms, Prediction
from .settings import Objective

ENOUGH = 0.95
"""From this probability of finishing within the budget, more of it makes no difference."""

ENOUGH_UNTRIED = 0.2
"""The same for a backend that is not known yet: a cautious guess must not keep it from ever being tried."""

QUALITY_TOLERANCE = 0.05
"""Qualities that differ by no more count as equal."""

_RELATIVE_TOLERANCE = 1.10
_ROUNDING = 1e-9

_BETTER = {Objective.QUALITY: "higher quality", Objective.LATENCY: "faster", Objective.COST: "cheaper"}
_WORSE = {Objective.QUALITY: "lower quality", Objective.LATENCY: "slower", Objective.COST: "costs more"}


@dataclass(frozen=True, slots=True)
class Standing:
    """A backend that neither labels nor rules refuse, and what the rules make of it.

    ``index`` is its position in the configuration. ``shortfall`` is how far its quality is from 1. ``strength`` is 0
    where no rule prefers it.
    """

    index: int
    name: str
    terms: BackendTerms
    shortfall: float
    strength: int
    preferred_by: str
    avoided_by: str | None


@dataclass(slots=True)
class Candidate:
    """A permitted backend with all that its place in the order depends on. ``index`` counts candidates as they come.

    ``likely``: it is likely to finish in time, as far as that is known. ``kept``: it has the conversation so far.
    ``separated_by`` is the objective that put it after the one before.
    """

    index: int
    standing: Standing
    prediction: Prediction
    labels: Labels
    likely: bool
    kept: bool
    separated_by: Objective | None = None

    @property
    def rank(self) -> tuple[bool, bool, int, bool]:
        """What counts before the objectives: less is better."""
        return self.standing.avoided_by is not None, not self.likely, -self.standing.strength, not self.kept

    @property
    def latency(self) -> float:
        """The seconds that it would typically take, to the first token where they are streamed."""
        return (self.prediction.first if self.labels.streaming else self.prediction.total).median()

    @property
    def cost(self) -> float:
        """US dollars."""
        return self.standing.terms.cost(self.labels)


class _Measure(NamedTuple):
    """How an objective is read; what is no more than ``scale`` times the best plus ``slack`` counts as equal to it."""

    read: Callable[[Candidate], float]
    scale: float
    slack: float


# By the texts of the objectives, because an enum's hash is slow.
_MEASURES = {
    str(Objective.QUALITY): _Measure(attrgetter("standing.shortfall"), 1.0, QUALITY_TOLERANCE + _ROUNDING),
    str(Objective.LATENCY): _Measure(attrgetter("latency"), _RELATIVE_TOLERANCE, _ROUNDING),
    str(Objective.COST): _Measure(attrgetter("cost"), _RELATIVE_TOLERANCE, _ROUNDING),
}
_INDEX = attrgetter("index")
_QUALITY = Objective.QUALITY


def in_order(candidates: Sequence[Candidate], objectives: tuple[Objective, ...]) -> list[Candidate]:
    """The candidates from first to last. They come in the configuration's order.

    Avoided ones stand last; then come, in this order, whether it is likely to finish in time, the strongest rule that
    prefers it, whether it has the conversation so far, the objectives, and its place in the configuration.
    """
    groups: dict[tuple[bool, bool, int, bool], list[Candidate]] = {}
    for each in candidates:
        groups.setdefault(each.rank, []).append(each)
    ordered: list[Candidate] = []
    for rank in sorted(groups):
        ordered += _refined(groups[rank], objectives)
    return ordered


def lasts(ordered: Sequence[Candidate], objectives: tuple[Objective, ...]) -> bool:
    """Whether it is the order whenever the same candidates are likely and kept: only their qualities were compared."""
    quality_first = objectives[:1] == (_QUALITY,)
    return all(
        before.rank != after.rank or (quality_first and after.separated_by is _QUALITY)
        for before, after in pairwise(ordered)
    )


class Reason(NamedTuple):
    """Why a candidate stands where it does. ``tells_chance``: its probability of finishing in time is to be added."""

    text: str
    tells_chance: bool = False


def reasons(ordered: Sequence[Candidate]) -> list[Reason]:
    """For each candidate, why it stands where it does."""
    if len(ordered) == 1:
        return [Reason("the only one permitted and ready")]
    if not ordered:
        return []
    first, second = ordered[0], ordered[1]
    return [_advantage(first, second), *[_drawback(before, after) for before, after in pairwise(ordered)]]


def _refined(group: list[Candidate], objectives: tuple[Objective, ...]) -> list[Candidate]:
    """The group by its objectives.

    'About equal' is not transitive, so values are compared with the best that is left, never with a neighbour's.
    """
    if len(group) == 1 or not objectives:
        return group
    objective = objectives[0]
    read, scale, slack = _MEASURES[objective._value_]
    clusters: list[list[Candidate]] = []
    bound = -inf
    for each in sorted(group, key=read):
        value = read(each)
        if value > bound:
            clusters.append([each])
            bound = value * scale + slack
        else:
            clusters[-1].append(each)
    ordered: list[Candidate] = []
    for cluster in clusters:
        alike = _refined(sorted(cluster, key=_INDEX), objectives[1:])
        if ordered:
            alike[0].separated_by = objective
        ordered += alike
    return ordered


def _advantage(first: Candidate, second: Candidate) -> Reason:
    where = f"before {second.standing.name}: "
    if second.standing.avoided_by is not None and first.standing.avoided_by is None:
        return Reason(f"{where}rule {second.standing.avoided_by!r} avoids that one")
    if first.likely and not second.likely:
        return Reason(f"{where}likely to finish in time", tells_chance=True)
    if first.standing.strength > second.standing.strength:
        return Reason(f"{where}rule {first.standing.preferred_by!r} prefers it")
    if first.kept:
        return Reason(f"{where}it has the conversation so far")
    objective = second.separated_by
    better = "equal otherwise, and earlier in the configuration" if objective is None else _BETTER[objective]
    return Reason(where + better)


def _drawback(before: Candidate, after: Candidate) -> Reason:
    where = f"after {before.standing.name}: "
    if after.standing.avoided_by is not None and before.standing.avoided_by is None:
        return Reason(f"{where}rule {after.standing.avoided_by!r} avoids it")
    if before.likely and not after.likely:
        return Reason(f"{where}less likely to finish in time", tells_chance=True)
    if before.standing.strength > after.standing.strength:
        return Reason(f"{where}rule {before.standing.preferred_by!r} prefers that one")
    if before.kept:
        return Reason(f"{where}that one has the conversation so far")
    objective = after.separated_by
    worse = "equal otherwise, and later in the configuration" if objective is None else _WORSE[objective]
    return Reason(where + worse)
