"""From what is known of each endpoint and of the interfaces to one state of the link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.failure import PathFault
from ...policies.facts import LinkState
from .reach import ASSUMED, OF_THE_NETWORK, Reach

_SURE = 99


@dataclass(frozen=True, slots=True)
class Judgement:
    """A state, how sure it is, why, and whose evidence it rests on (``None``: the interfaces, or nothing)."""

    state: LinkState
    confidence_percent: int
    why: str
    by: Reach | None = None


def judge(reaches: Sequence[Reach], *, attached: bool) -> Judgement:
    """The link's state. Endpoints on this machine say nothing about it.

    Never online from an interface alone: after a loss the link is limited until something has answered. Without any
    evidence it is taken to be online, with little confidence.
    """
    if not attached:
        return Judgement(LinkState.OFFLINE, _SURE, "no network interface of this device has a link and an address")
    over_network = [reach for reach in reaches if reach.over_network]
    blocked = [reach for reach in over_network if reach.fault in OF_THE_NETWORK]
    there = [reach for reach in over_network if reach.fresh or _is_down(reach)]
    if blocked:
        worst = max(blocked, key=lambda reach: reach.confirmed_at)
        if there:
            return Judgement(LinkState.LIMITED, worst.confidence(), f"{worst.why()}, while others answer", worst)
        if len(blocked) == len(over_network):
            return Judgement(LinkState.OFFLINE, worst.confidence(), worst.why(), worst)
        return Judgement(LinkState.LIMITED, ASSUMED, f"{worst.why()}; of others nothing is known now", worst)
    portal = next((reach for reach in over_network if _is_portal(reach, bool(there))), None)
    if portal is not None:
        return Judgement(LinkState.LIMITED, portal.confidence(), portal.why(), portal)
    if there:
        best = max(there, key=Reach.confidence)
        return Judgement(LinkState.ONLINE, best.confidence(), best.why(), best)
    unproven = next((reach for reach in over_network if reach.unproven), None)
    if unproven is not None:
        return Judgement(LinkState.LIMITED, ASSUMED, unproven.why(), unproven)
    known = [reach for reach in over_network if reach.age() is not None]
    if known:
        latest = min(known, key=lambda reach: reach.age() or 0.0)
        return Judgement(LinkState.ONLINE, latest.confidence(), latest.why(), latest)
    return Judgement(LinkState.ONLINE, ASSUMED, "nothing was asked yet, and nothing speaks against it")


def _is_down(reach: Reach) -> bool:
    """A machine that answers, though its service does not: the way there works."""
    return reach.fault in (PathFault.REFUSED, PathFault.HUNG, PathFault.BROKEN)


def _is_portal(reach: Reach, others_answer: bool) -> bool:
    """A portal takes everyone's name. Where others answer, a service that never did is rather configured wrongly."""
    return reach.fault is PathFault.INTERCEPTED and (reach.proven or not others_answer)
