"""How a request that got no answer ends: which error, with which sentence."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.decision import Decision, RefusalCode
from ...core.duration import format_duration
from ...core.errors import (
    BackendError,
    DeadlineExceeded,
    EdgewiseError,
    InvalidRequest,
    NoBackendPermitted,
    Offline,
    Overloaded,
)
from ...core.failure import AttemptError, FailureKind
from ...policies.plan import Plan
from .race import RaceFailed

# Refusals that no other time or link would lift: what remains beside them is the request's own length.
_LASTING = frozenset(
    {
        RefusalCode.RESIDENCY,
        RefusalCode.DENIED,
        RefusalCode.NOT_SELECTED,
        RefusalCode.CALLER_NARROWED,
        RefusalCode.CAPABILITY,
        RefusalCode.CONTEXT_LENGTH,
    }
)

# What says nothing of permission: the backend would do, if it worked.
_OUT_OF_ORDER = frozenset({RefusalCode.UNREACHABLE, RefusalCode.QUARANTINED, RefusalCode.LOADING})


def refused(plan: Plan, decision: Decision) -> EdgewiseError:
    """The error for a plan without a step."""
    reasons = "; ".join(f"{refusal.backend}: {refusal.sentence}" for refusal in plan.refusals)
    codes = {refusal.code for refusal in plan.refusals}
    if RefusalCode.CONTEXT_LENGTH in codes and codes <= _LASTING:
        return _invalid(f"the prompt is too long for every backend that may take it; shorten it ({reasons})", decision)
    if codes & _OUT_OF_ORDER and codes <= _LASTING | _OUT_OF_ORDER:
        return BackendError(f"no backend that may take the request is in working order ({reasons})", decision)
    if plan.online_would_help:
        return Offline(f"no backend can take the request while offline ({reasons})", decision)
    return NoBackendPermitted(f"no backend may take the request ({reasons})", decision)


def failed(race: RaceFailed, decision: Decision, partial: str = "") -> EdgewiseError:
    """The error for a race that no step won."""
    if race.timed_out:
        return out_of_time(decision, partial, first_token=race.unbegun)
    kinds = {failure.kind for failure in race.failures}
    reasons = "; ".join(_attempts(race.failures))
    if kinds == {FailureKind.CONTEXT_LENGTH}:
        return _invalid(f"the prompt is too long for every backend that may take it; shorten it ({reasons})", decision)
    if kinds in ({FailureKind.INVALID_REQUEST}, {FailureKind.UNKNOWN_MODEL}):
        return _invalid(reasons, decision)
    if kinds == {FailureKind.OVERLOADED}:
        return Overloaded(f"every permitted backend is overloaded; try again later ({reasons})", decision)
    return BackendError(f"every permitted attempt failed ({reasons})", decision)


def out_of_time(decision: Decision, partial: str = "", *, first_token: bool = False) -> DeadlineExceeded:
    """The error for a budget that ran out."""
    budget = decision.first_token_budget if first_token else decision.latency_budget
    assert budget is not None
    what = "no first token" if first_token else "no whole answer"
    tried = ", ".join(dict.fromkeys(attempt.backend for attempt in decision.attempts))
    sentence = f"{what} within {format_duration(budget)}; tried: {tried or 'nothing'}"
    return DeadlineExceeded(sentence, decision, partial)


def _invalid(sentence: str, decision: Decision) -> InvalidRequest:
    error = InvalidRequest(sentence)
    error.decision = decision
    return error


def _attempts(failures: Sequence[AttemptError]) -> list[str]:
    return list(dict.fromkeys(failure.sentence for failure in failures))
