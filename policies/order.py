"""The order of permitted backends, and why each stands where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .facts import BackendTerms, Prediction
from .settings import Objective

LIKELY = 0.95
"""From this probability of finishing within the budget, more of it makes no difference."""

_QUALITY_TOLERANCE = 0.05
_RELATIVE_TOLERANCE = 1.10
_ROUNDING = 1e-9

_BETTER = {Objective.QUALITY: "higher quality", Objective.LATENCY: "faster", Objective.COST: "cheaper"}
_WORSE = {Objective.QUALITY: "lower quality", Objective.LATENCY: "slower", Objective.COST: "costs more"}


@dataclass(slots=True)
class Candidate:
    """A permitted backend with all that its place in the order depends on. ``strength`` is 0 if no rule prefers it."""

    index: int
    terms: BackendTerms
    prediction: Prediction
    p_done: float
    latency: float
    cost: float
    strength: int
    preferred_by: str
    avoided_by: str | None


def in_order(candidates: Sequence[Candidate], objectives: tuple[Objective, ...]) -> list[tuple[Candidate, str]]:
    """The candidates from first to last, each with the reason for its place.

    Avoided ones stand last; then come, in this order, whether it is likely to finish in time, the strongest rule that
    prefers it, the objectives, and its place in the configuration.
    """
    if len(candidates) == 1:
        return [(candidates[0], "the only one permitted and ready")]
    groups: dict[tuple[bool, bool, int], list[Candidate]] = {}
    for each in candidates:
        key = (each.avoided_by is not None, each.p_done < LIKELY, -each.strength)
        groups.setdefault(key, []).append(each)
    ordered: list[tuple[Candidate, Objective | None]] = []
    for key in sorted(groups):
        ordered += _refined(groups[key], objectives)
    if not ordered:
        return []
    first, second = ordered[0][0], ordered[1]
    reasons = [f"before {second[0].terms.name}: {_advantage(first, *second)}"]
    for (before, _), (after, objective) in pairwise(ordered):
        reasons.append(f"after {before.terms.name}: {_drawback(before, after, objective)}")
    return [(candidate, reason) for (candidate, _), reason in zip(ordered, reasons, strict=True)]


def _refined(group: list[Candidate], objectives: tuple[Objective, ...]) -> list[tuple[Candidate, Objective | None]]:
    """The group by its objectives; beside each candidate, the objective that puts it after the one before.

    'About equal' is not transitive, so values are compared with the best that is left, never with a neighbour's.
    """
    if len(group) == 1 or not objectives:
        return [(each, None) for each in group]
    objective, *others = objectives
    left = sorted(group, key=lambda each: (_value(each, objective), each.index))
    ordered: list[tuple[Candidate, Objective | None]] = []
    while left:
        bound = _bound(_value(left[0], objective), objective)
        count = next((at for at, each in enumerate(left) if _value(each, objective) > bound), len(left))
        alike = sorted(left[:count], key=lambda each: each.index)
        refined = _refined(alike, tuple(others))
        if ordered:
            refined[0] = (refined[0][0], objective)
        ordered += refined
        left = left[count:]
    return ordered


def _value(candidate: Candidate, objective: Objective) -> float:
    """What to minimise."""
    if objective is Objective.QUALITY:
        return -candidate.terms.quality
    return candidate.latency if objective is Objective.LATENCY else candidate.cost


def _bound(best: float, objective: Objective) -> float:
    """The worst value that counts as equal to the best."""
    if objective is Objective.QUALITY:
        return best + _QUALITY_TOLERANCE + _ROUNDING
    return best * _RELATIVE_TOLERANCE + _ROUNDING


def _advantage(first: Candidate, second: Candidate, objective: Objective | None) -> str:
    if second.avoided_by is not None and first.avoided_by is None:
        return f"rule {second.avoided_by!r} avoids that one"
    if second.p_done < LIKELY <= first.p_done:
        return f"likely to finish in time ({first.p_done:.0%})"
    if first.strength > second.strength:
        return f"rule {first.preferred_by!r} prefers it"
    return "equal otherwise, and earlier in the configuration" if objective is None else _BETTER[objective]


def _drawback(before: Candidate, after: Candidate, objective: Objective | None) -> str:
    if after.avoided_by is not None and before.avoided_by is None:
        return f"rule {after.avoided_by!r} avoids it"
    if after.p_done < LIKELY <= before.p_done:
        return f"less likely to finish in time ({after.p_done:.0%})"
    if before.strength > after.strength:
        return f"rule {before.preferred_by!r} prefers that one"
    return "equal otherwise, and later in the configuration" if objective is None else _WORSE[objective]
