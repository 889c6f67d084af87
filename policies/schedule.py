"""The last resort: the permitted step kept in reserve, and the last moment at which it can safely start."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import Prediction
from .order import Candidate

_WORTH_A_TRY = 0.5


def reserve(
    ordered: Sequence[Candidate], latency_budget: float, first_token_budget: float | None, overlap: bool
) -> tuple[int, float] | None:
    """The last resort's position in the order and when it starts, in seconds from the request's entry.

    It is the best step on this device, else the last one. ``None`` where there is none to reserve: it is first
    anyway, nothing may run beside another attempt, or it is known to be too late for it and not worth a try. A guess
    about a backend that is not known denies nothing.
    """
    if not overlap or len(ordered) < 2:
        return None
    at = next((at for at, each in enumerate(ordered) if each.terms.location.on_device), len(ordered) - 1)
    if at == 0:
        return None
    moment = last_safe_moment(ordered[at].prediction, latency_budget, first_token_budget)
    if moment >= 0.0:
        return at, moment
    worth_it = ordered[at].p_done >= _WORTH_A_TRY or not ordered[at].prediction.known
    return (at, 0.0) if worth_it else None


def last_safe_moment(prediction: Prediction, latency_budget: float, first_token_budget: float | None) -> float:
    """The latest start that keeps both budgets at the predicted p95; negative when it has passed."""
    moment = latency_budget - prediction.total.quantile_95()
    if first_token_budget is not None:
        moment = min(moment, first_token_budget - prediction.first.quantile_95())
    return moment
