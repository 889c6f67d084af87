"""The order in which backends stand for what each is able to now, remembered where nothing else decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.decision import Refusal
from ..core.request import Labels
from .facts import BackendTerms, Prediction
from .memory import Memory
from .order import Candidate, Standing, in_order, lasts, reasons
from .rules import Effects
from .schedule import last_resort
from .settings import Objective

_REMEMBERED = 64

UNABLE, ABLE, LIKELY = 0, 1, 2
"""What a backend is able to now: to take the request at all, and likely to finish it in time."""
KEPT = 4
"""Added where it has the conversation so far."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Backends in order, and which of them is the last resort: its position in this order.

    ``places`` has for each one its position among the standings, its name, why it stands here, whether its chance is
    to be told with that, and whether it is avoided.
    """

    places: tuple[tuple[int, str, str, bool, bool], ...]
    last_resort: int | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What labels and rules settle of a plan, before anything of the moment is looked at.

    ``standings`` are the backends that neither refuses, in the configuration's order; ``refusals`` are of the others.
    """

    data_classes: tuple[str, ...]
    hedge: bool
    effects: Effects
    order: tuple[Objective, ...]
    standings: tuple[Standing, ...]
    refusals: tuple[Refusal, ...]
    _rankings: Memory[tuple[int, ...], Ranking] = field(default_factory=lambda: Memory(_REMEMBERED), init=False)

    def ranking(self, abilities: tuple[int, ...], predictions: Sequence[Prediction], labels: Labels) -> Ranking:
        """The order of those that are able."""
        known = self._rankings.get(abilities)
        if known is None:
            each_one = zip(self.standings, predictions, abilities, strict=True)
            candidates = [
                Candidate(at, standing, prediction, labels, bool(ability & LIKELY), bool(ability & KEPT))
                for at, (standing, prediction, ability) in enumerate(each_one)
                if ability
            ]
            ordered = in_order(candidates, self.order)
            known = _ranking(ordered)
            if lasts(ordered, self.order):
                self._rankings.keep(abilities, known)
        return known


def settle(
    terms: Sequence[BackendTerms],
    data_classes: tuple[str, ...],
    by_labels: Sequence[Refusal | None],
    hedge: bool,
    effects: Effects,
    default_order: tuple[Objective, ...],
) -> Settled:
    """What is settled by labels, which refuse backends as ``by_labels`` says, and by the rules' effects."""
    standings: list[Standing] = []
    refusals: list[Refusal] = []
    for at, each in enumerate(terms):
        refusal = by_labels[at] or effects.refusals[at]
        if refusal is not None:
            refusals.append(refusal)
            continue
        strength, preferred_by = effects.preferred.get(at, (0, ""))
        avoided_by = effects.avoided.get(at)
        standings.append(Standing(at, each.name, each, 1.0 - each.quality, strength, preferred_by, avoided_by))
    order = effects.order or default_order
    hedge = hedge and effects.hedge is not False
    return Settled(data_classes, hedge, effects, order, tuple(standings), tuple(refusals))


def _ranking(ordered: Sequence[Candidate]) -> Ranking:
    places = [
        (each.index, each.standing.name, *reason, each.standing.avoided_by is not None)
        for each, reason in zip(ordered, reasons(ordered), strict=True)
    ]
    return Ranking(tuple(places), last_resort([each.standing.terms.location.on_device for each in ordered]))
