"""A decision as one line of JSON, and back: what was decided, and the facts that it was decided by. No content.

docs/policy.md has the schema. Facts are there so that a line can be judged again by another policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.decision import Decision, RefusalCode
from ..core.errors import InvalidRequest
from ..core.place import PlaceSet
from ..core.request import Labels, Priority, Residency, Task
from ..policies import Policy
from ..policies.facts import (
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

SCHEMA = 1
"""The number that every line begins with. Keys may be added under it; none changes its meaning or goes."""

_SIGMAS_TO_P95 = 1.6448536269514722
_NARROWEST = 1e-6


class Unreadable(ValueError):
    """A line is no decision of a schema that is known. Its text is never quoted."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line, read. ``prompt_tokens`` and ``output_tokens`` are those of the attempt that answered, if one did."""

    line: Mapping[str, Any]
    at: datetime
    answered_by: str | None
    first_choice: str | None
    ended: float | None
    cost: float
    prompt_tokens: int
    output_tokens: int


def line_of(decision: Decision, facts: Facts, policy: Policy, outcome: str, at: datetime, dropped: int) -> bytes:
    """A decision's line. Of the labels only what is not in words that a caller chose: no names, no undeclared tags."""
    labels = facts.labels
    line = {
        "schema": SCHEMA,
        "at": at.isoformat(timespec="milliseconds"),
        "request_id": decision.request_id,
        "policy_version": decision.policy_version,
        "outcome": outcome,
        "answered_by": decision.answered_by,
        "dropped": dropped,
        "task": decision.task.value,
        "data_classes": decision.data_classes,
        "prompt_tokens": labels.prompt_tokens,
        "max_output_tokens": labels.max_output_tokens,
        "priority": labels.priority.value,
        "streaming": labels.streaming,
        "latency_budget": decision.latency_budget,
        "first_token_budget": decision.first_token_budget,
        "planning": decision.planning,
        "ended": decision.ended,
        "reason": decision.reason,
        "steps": [
            {
                "backend": each.backend,
                "last_resort": each.last_resort,
                "starts_at": each.starts_at,
                "reason": each.reason,
            }
            for each in decision.steps
        ],
        "refusals": [
            {"backend": each.backend, "code": each.code.value, "sentence": each.sentence} for each in decision.refusals
        ],
        "matched_rules": decision.matched_rules,
        "notes": decision.notes,
        "attempts": [
            {
                "backend": each.backend,
                "reason": each.reason,
                "started": each.started,
                "first_token": each.first_token,
                "ended": each.ended,
                "failure": None if each.failure is None else each.failure.value,
                "sentence": each.sentence,
                "prompt_tokens": each.prompt_tokens,
                "output_tokens": each.output_tokens,
                "cost": each.cost,
            }
            for each in decision.attempts
        ],
        "seams": [{"from": each.from_backend, "to": each.to_backend, "reason": each.reason} for each in decision.seams],
        "labels": _labels_as_dict(labels, policy),
        "link": {
            "state": facts.link.state.value,
            "metered": facts.link.metered,
            "confidence_percent": facts.link.confidence_percent,
            "age": facts.link.age,
            "forced": facts.link.forced,
        },
        "device": {
            "battery_percent": facts.device.battery_percent,
            "has_battery": facts.device.has_battery,
            "charging": facts.device.charging,
            "load_percent": facts.device.load_percent,
            "memory_free_mb": facts.device.memory_free_mb,
            "thermal": facts.device.thermal,
        },
        "time": {"hour": facts.time.hour, "minute": facts.time.minute, "weekday": facts.time.weekday},
        "spending": {"today_cents": facts.spending.today_cents, "month_cents": facts.spending.month_cents},
        "conversation_backend": facts.conversation_backend,
        "backends": {each.name: _backend_as_dict(each) for each in facts.backends},
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _labels_as_dict(labels: Labels, policy: Policy) -> dict[str, Any]:
    models: set[str] = set().union(*(terms.models or () for terms in policy.terms))
    residency = labels.residency
    return {
        "data_classes": labels.data_classes,
        "unclassed": labels.unclassed,
        "latency_budget": labels.latency_budget,
        "first_token_budget": labels.first_token_budget,
        "tags": dict(policy.declared_tags(labels)),
        "backends": labels.backends,
        "process_in": None if residency is None else _names(residency.process_in),
        "store_in": None if residency is None else _names(residency.store_in),
        "operators": None if residency is None else _names(residency.operators),
        "model": labels.model if labels.model in models else "",
        "continues": labels.continues,
        "constrained": labels.constrained,
        "logprobs": labels.logprobs,
        "idempotent": labels.idempotent,
    }


def _names(places: PlaceSet | None) -> list[str] | None:
    if places is None:
        return None
    return ["any"] if places.anywhere else sorted(map(str, places.places))


def _backend_as_dict(backend: BackendFacts) -> dict[str, Any]:
    why = backend.not_ready
    return {
        "not_ready": None if why is None else {"code": why.code.value, "sentence": why.sentence},
        "known": backend.prediction.known,
        "first": _quantiles(backend.prediction.first),
        "total": _quantiles(backend.prediction.total),
    }


def _quantiles(predicted: LogNormal) -> dict[str, float]:
    return {"p50": float(f"{predicted.median():.6g}"), "p95": float(f"{predicted.quantile_95():.6g}")}


def read_line(raw: bytes) -> Recorded:
    """A line as it was recorded. Raises `Unreadable`."""
    try:
        line = json.loads(raw)
        if line["schema"] != SCHEMA:
            raise Unreadable
        answered_by = line["answered_by"]
        answered: Mapping[str, Any] = next((each for each in line["attempts"] if each["backend"] == answered_by), {})
        costs = [each.get("cost") or 0.0 for each in line["attempts"]]
        return Recorded(
            line=line,
            at=datetime.fromisoformat(line["at"]),
            answered_by=answered_by,
            first_choice=line["steps"][0]["backend"] if line["steps"] else None,
            ended=line["ended"],
            cost=math.fsum(costs),
            prompt_tokens=answered.get("prompt_tokens") or line["prompt_tokens"],
            output_tokens=answered.get("output_tokens") or line["max_output_tokens"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        pass
    raise Unreadable


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
        return BackendFacts(name, prediction, not_ready)
    seconds = assumed.get(name)
    typical = _log_normal({"p50": seconds or 1.0, "p95": (seconds or 1.0) * 1.5})
    not_ready = None if seconds else NotReady(RefusalCode.UNREACHABLE, "the log does not know it")
    return BackendFacts(name, Prediction(typical, typical), not_ready)


def _log_normal(quantiles: Mapping[str, float]) -> LogNormal:
    mu = math.log(quantiles["p50"])
    return LogNormal(mu, max((math.log(quantiles["p95"]) - mu) / _SIGMAS_TO_P95, _NARROWEST))
