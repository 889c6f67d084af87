"""The last resort: the permitted step kept in reserve, and the last moment at which it can safely start."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import Prediction

_WORTH_A_TRY = 0.5


def last_resort(on_device: Sequence[bool]) -> int | None:
    """The last resort's position in an order, given which are on this device: the best of those, else the last.

    ``None`` where that is first anyway.
    """
    at = next((at for at, here in enumerate(on_device) if here), len(on_device) - 1)
    return at if at > 0 else None


def starts_at(
    prediction: Prediction, p_done: float, latency_budget: float, first_token_budget: float | None
) -> float | None:
    """When the last resort starts, in seconds from the request's entry.

    ``None`` where it is known to be too late for it, and not worth a try: then there is none. A guess about a backend
    that is not known denies nothing.
    """
    moment = last_safe_moment(prediction, latency_budget, first_token_budget)
    if moment >= 0.0:
        return moment
    return 0.0 if p_done >= _WORTH_A_TRY or not prediction.known else None


def last_safe_moment(prediction: Prediction, latency_budget: float, first_token_budget: float | None) -> float:
    """The latest start that keeps both budgets at the predicted p95; negative when it has passed."""
    moment = latency_budget - prediction.total.quantile_95()
    if first_token_budget is not None:
        moment = min(moment, first_token_budget - prediction.first.quantile_95())
    return moment
