"""A decision as one line of JSON: what was decided, and the facts that it was decided by. No content.

docs/policy.md has the schema. Facts are there so that another policy can judge them again.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..core.decision import Decision
from ..core.request import Labels
from ..policies.facts import BackendFacts, Facts, LogNormal

if TYPE_CHECKING:
    from ..policies import Policy

SCHEMA = 1
"""The number that every line begins with. Keys may be added under it; none changes its meaning or goes."""


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
        "seams": [
            {"from": each.from_backend, "to": each.to_backend, "reason": each.reason, "restarts": each.restarts}
            for each in decision.seams
        ],
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
    residency = {} if labels.residency is None else labels.residency.names()
    return {
        "data_classes": labels.data_classes,
        "unclassed": labels.unclassed,
        "latency_budget": labels.latency_budget,
        "first_token_budget": labels.first_token_budget,
        "tags": dict(policy.declared_tags(labels)),
        "backends": labels.backends,
        "process_in": residency.get("process_in"),
        "store_in": residency.get("store_in"),
        "operators": residency.get("operators"),
        "model": labels.model if labels.model in models else "",
        "continues": labels.continues,
        "constrained": labels.constrained,
        "logprobs": labels.logprobs,
        "idempotent": labels.idempotent,
    }


def _backend_as_dict(backend: BackendFacts) -> dict[str, Any]:
    why = backend.not_ready
    return {
        "not_ready": None if why is None else {"code": why.code.value, "sentence": why.sentence},
        "judged_alone": backend.judged_alone,
        "known": backend.prediction.known,
        "first": _quantiles(backend.prediction.first),
        "total": _quantiles(backend.prediction.total),
    }


def _quantiles(predicted: LogNormal) -> dict[str, float]:
    return {"p50": float(f"{predicted.median():.6g}"), "p95": float(f"{predicted.quantile_95():.6g}")}
