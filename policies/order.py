"""The order of permitted backends, and why each stands where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

from .facts import BackendTerms, Prediction
from .settings import Objective

LIKELY = 0.95
"""From this probability of finishing within the budget, more of it makes no difference."""

LIKELY_UNTRIED = 0.2
"""The same for a backend that is not known yet: a cautious guess must not keep it from ever being tried."""

QUALITY_TOLERANCE = 0.05
"""Qualities that differ by no more count as equal."""

_RELATIVE_TOLERANCE = 1.10
_ROUNDING = 1e-9

_BETTER = {Objective.QUALITY: "higher quality", Objective.LATENCY: "faster", Objective.COST: "cheaper"}
_WORSE = {Objective.QUALITY: "lower quality", Objective.LATENCY: "slower", Objective.COST: "costs more"}


@dataclass(slots=True)
class Candidate:
    """A permitted backend with all that its place in the order depends on.

    ``shortfall`` is how far its quality is from 1, ``latency`` seconds, ``cost`` US dollars: less is better of each.
    ``strength`` is 0 if no rule prefers it. ``kept``: it has the conversation so far. ``separated_by`` is the objective
    that put it after the one before.
    """

    index: int
    terms: BackendTerms
    prediction: Prediction
    p_done: float
    shortfall: float
    latency: float
    cost: float
    strength: int
    preferred_by: str
    avoided_by: str | None
    kept: bool
    separated_by: Objective | None = None

    @property
    def likely(self) -> bool:
        """Whether it is likely to finish in time, as far as that is known."""
        return self.p_done >= (LIKELY if self.prediction.known else LIKELY_UNTRIED)


# By the texts of the objectives, because an enum's hash is slow.
_MEASURE = {
    str(Objective.QUALITY): attrgetter("shortfall"),
    str(Objective.LATENCY): attrgetter("latency"),
    str(Objective.COST): attrgetter("cost"),
}
_QUALITY = Objective.QUALITY
_INDEX = attrgetter("index")


def in_order(candidates: Sequence[Candidate], objectives: tuple[Objective, ...]) -> list[Candidate]:
    """The candidates from first to last. They come in the configuration's order.

    Avoided ones stand last; then come, in this order, whether it is likely to finish in time, the strongest rule that
    prefers it, whether it has the conversation so far, the objectives, and its place in the configuration.
    """
    groups: dict[tuple[bool, bool, int, bool], list[Candidate]] = {}
    for each in candidates:
        key = (each.avoided_by is not None, not each.likely, -each.strength, not each.kept)
        if key in groups:
            groups[key].append(each)
        else:
            groups[key] = [each]
    ordered: list[Candidate] = []
    for key in sorted(groups):
        group = groups[key]
        ordered += group if len(group) == 1 else _refined(group, objectives)
    return ordered


def reasons(ordered: Sequence[Candidate]) -> list[str]:
    """For each candidate, why it stands where it does."""
    if len(ordered) == 1:
        return ["the only one permitted and ready"]
    if not ordered:
        return []
    first, second = ordered[0], ordered[1]
    return [
        f"before {second.terms.name}: {_advantage(first, second)}",
        *[f"after {before.terms.name}: {_drawback(before, after)}" for before, after in pairwise(ordered)],
    ]


def _refined(group: list[Candidate], objectives: tuple[Objective, ...]) -> list[Candidate]:
    """The group by its objectives.

    'About equal' is not transitive, so values are compared with the best that is left, never with a neighbour's.
    """
    if not objectives:
        return group
    objective = objectives[0]
    measure = _MEASURE[objective._value_]
    left = sorted(group, key=measure)
    values = list(map(measure, left))
    ordered: list[Candidate] = []
    start, count = 0, len(left)
    while start < count:
        bound = _bound(values[start], objective)
        end = start + 1
        while end < count and values[end] <= bound:
            end += 1
        alike = left[start:end] if end == start + 1 else _refined(sorted(left[start:end], key=_INDEX), objectives[1:])
        if start:
            alike[0].separated_by = objective
        ordered += alike
        start = end
    return ordered


def _bound(best: float, objective: Objective) -> float:
    """The worst value that counts as equal to the best."""
    if objective is _QUALITY:
        return best + QUALITY_TOLERANCE + _ROUNDING
    return best * _RELATIVE_TOLERANCE + _ROUNDING


def _advantage(first: Candidate, second: Candidate) -> str:
    if second.avoided_by is not None and first.avoided_by is None:
        return f"rule {second.avoided_by!r} avoids that one"
    if first.likely and not second.likely:
        return f"likely to finish in time ({first.p_done:.0%})"
    if first.strength > second.strength:
        return f"rule {first.preferred_by!r} prefers it"
    if first.kept:
        return "it has the conversation so far"
    objective = second.separated_by
    return "equal otherwise, and earlier in the configuration" if objective is None else _BETTER[objective]


def _drawback(before: Candidate, after: Candidate) -> str:
    if after.avoided_by is not None and before.avoided_by is None:
        return f"rule {after.avoided_by!r} avoids it"
    if before.likely and not after.likely:
        return f"less likely to finish in time ({after.p_done:.0%})"
    if before.strength > after.strength:
        return f"rule {before.preferred_by!r} prefers that one"
    if before.kept:
        return "that one has the conversation so far"
    objective = after.separated_by
    return "equal otherwise, and later in the configuration" if objective is None else _WORSE[objective]
