"""A recorded decision, read back from its line, with the facts that another policy can judge."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..core.decision import RefusalCode
from ..core.errors import InvalidRequest
from ..core.request import Labels, Priority, Residency, Task
from ..policies.facts import (
    DEVIATIONS_TO_P95,
    BackendFacts,
    DeviceFacts,
    Facts,
    LinkFacts,
    LinkState,
    LogNormal,
    NotReady,
    Prediction,
    SpendingFacts,
    TimeFacts,
)
from ..policies.replay import Choice
from .decision_line import SCHEMA

if TYPE_CHECKING:
    from ..policies import Policy

_NARROWEST = 1e-6


class Unreadable(ValueError):
    """A line is no decision of a schema that is known. Its text is never quoted."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line, read. ``choice`` came first (``None``: nobody was permitted); its cost is what all attempts came to.

    ``ended`` is seconds from entry to the answer, ``None`` without one. Tokens are those of the attempt that answered,
    else the request's own estimate.
    """

    line: Mapping[str, Any]
    at: datetime
    choice: Choice | None
    ended: float | None
    prompt_tokens: int
    output_tokens: int


def read_line(raw: bytes) -> Recorded:
    """A line as it was recorded. Raises `Unreadable`."""
    try:
        line = json.loads(raw)
        if line["schema"] != SCHEMA:
            raise Unreadable
        tried = [each for each in line["attempts"] if each["backend"] == line["answered_by"]]
        answered = tried[-1] if tried else {"prompt_tokens": 0, "output_tokens": 0}
        return Recorded(
            line=line,
            at=datetime.fromisoformat(line["at"]),
            choice=_choice(line),
            ended=line["ended"],
            prompt_tokens=answered["prompt_tokens"] or line["prompt_tokens"],
            output_tokens=answered["output_tokens"] or line["max_output_tokens"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        pass
    raise Unreadable


def _choice(line: Mapping[str, Any]) -> Choice | None:
    if not line["steps"]:
        return None
    name = line["steps"][0]["backend"]
    first, total = (_log_normal(line["backends"][name][part]) for part in ("first", "total"))
    in_time = total.probability_within(line["latency_budget"])
    if line["first_token_budget"] is not None:
        in_time = min(in_time, first.probability_within(line["first_token_budget"]))
    cost = math.fsum(each["cost"] or 0.0 for each in line["attempts"])
    return Choice(name, total.median(), in_time, cost)


def facts_of(recorded: Recorded, policy: Policy, assumed: Mapping[str, float]) -> Facts:
    """The facts of a recorded decision, for this policy's backends, in their order.

    Of a backend that the line does not know, ``assumed`` has its typical time in seconds; without one it is not ready.
    Raises `Unreadable`, and `InvalidRequest` for a residency that this policy has no words for.
    """
    line = recorded.line
    try:
        link, device, time, spending = line["link"], line["device"], line["time"], line["spending"]
        return Facts(
            request_id=str(line["request_id"]),
            labels=_labels(line, policy),
            link=LinkFacts(**{**link, "state": LinkState(link["state"])}),
            device=DeviceFacts(**device),
            time=TimeFacts(**time),
            backends=tuple(_backend(terms.name, line["backends"], assumed) for terms in policy.terms),
            spending=SpendingFacts(**spending),
            conversation_backend=line["conversation_backend"],
        )
    except InvalidRequest:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        pass
    raise Unreadable


def _labels(line: Mapping[str, Any], policy: Policy) -> Labels:
    labels = line["labels"]
    return Labels(
        task=Task(line["task"]),
        data_classes=tuple(labels["data_classes"]),
        latency_budget=labels["latency_budget"],
        first_token_budget=labels["first_token_budget"],
        max_output_tokens=line["max_output_tokens"],
        prompt_tokens=line["prompt_tokens"],
        priority=Priority(line["priority"]),
        tags=labels["tags"],
        residency=_residency(labels, policy),
        backends=tuple(labels["backends"]),
        model=labels["model"],
        streaming=line["streaming"],
        continues=labels["continues"],
        constrained=labels["constrained"],
        logprobs=labels["logprobs"],
        idempotent=labels["idempotent"],
        unclassed=labels["unclassed"],
    )


def _residency(labels: Mapping[str, Any], policy: Policy) -> Residency | None:
    bounds = {key: labels[key] for key in ("process_in", "store_in", "operators") if labels[key] is not None}
    return policy.residency(bounds) if bounds else None


def _backend(name: str, backends: Mapping[str, Any], assumed: Mapping[str, float]) -> BackendFacts:
    if name in backends:
        known = backends[name]
        why = known["not_ready"]
        not_ready = None if why is None else NotReady(RefusalCode(why["code"]), str(why["sentence"]))
        prediction = Prediction(_log_normal(known["first"]), _log_normal(known["total"]), bool(known["known"]))
        return BackendFacts(name, prediction, not_ready, bool(known["judged_alone"]))
    seconds = assumed.get(name)
    typical = _log_normal({"p50": seconds or 1.0, "p95": (seconds or 1.0) * 1.5})
    not_ready = None if seconds else NotReady(RefusalCode.UNREACHABLE, "the log does not know it")
    return BackendFacts(name, Prediction(typical, typical), not_ready)


def _log_normal(quantiles: Mapping[str, float]) -> LogNormal:
    mu = math.log(quantiles["p50"])
    return LogNormal(mu, max((math.log(quantiles["p95"]) - mu) / DEVIATIONS_TO_P95, _NARROWEST))
