"""A world as the YAML that configures a router."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgewise.router.config import Configuration, loads

from .kinds import KINDS
from .world import BackendPlan, ClassPlan, RulePlan, World


def configuration_of(world: World) -> Configuration:
    """What a user with this world's backends and policy would have written, loaded."""
    return loads(text_of(world), ".", file=f"world {world.seed}", environment={}, kinds=KINDS)


def text_of(world: World) -> str:
    """The file's text. Flow style is JSON, which leaves no doubt about quoting."""
    lines = ["version: 1", "backends:"]
    lines += [f"  {backend.name}: {_flow(_backend(backend))}" for backend in world.backends]
    lines += ["policy:", "  sites: {praxis: {in: DE}}", "  tags: {ward: [a, b]}", "  data_classes:"]
    lines += [f"    {name}: {_flow(_class(each))}" for name, each in world.classes.items()]
    if world.default_class is not None:
        lines.append(f"  default_data_class: {world.default_class}")
    defaults = {"latency_budget": world.latency_budget}
    if world.first_token_budget is not None:
        defaults["first_token_budget"] = world.first_token_budget
    lines.append(f"  defaults: {_flow(defaults)}")
    retry = {"max_attempts": world.max_attempts}
    lines.append(f"  resilience: {_flow({'retry': retry, 'stream_failover': world.stream_failover})}")
    if world.rules:
        lines.append("  rules:")
        lines += [f"    - {_rule(rule)}" for rule in world.rules]
    return "\n".join(lines) + "\n"


def _backend(backend: BackendPlan) -> dict[str, object]:
    location = {**backend.location, "evidence": backend.evidence}
    return {
        "kind": "simulated_device" if backend.on_device else "simulated_remote",
        "location": "device" if backend.on_device else location,
        "quality": backend.quality,
        "labels": [backend.label],
        "price": {"input": backend.price, "output": backend.price},
        "tasks": list(backend.tasks),
        "context_tokens": backend.context_tokens,
        "continues": backend.continues,
        "resumes": backend.resumes,
        "logprobs": backend.logprobs,
        "max_concurrency": backend.max_concurrency,
    }


def _class(each: ClassPlan) -> dict[str, object]:
    narrows = {} if each.narrows is None else {"narrows": [each.narrows]}
    return {**each.places, "evidence": each.evidence, **narrows}


def _rule(rule: RulePlan) -> str:
    written: dict[str, object] = {"name": rule.name, **rule.effects}
    if rule.condition is not None:
        written["when"] = rule.condition
    text = _flow(written)
    if rule.settings:
        settings = ", ".join(f"{key}: {value}" for key, value in rule.settings.items())
        text = f"{text[:-1]}, set: {{{settings}}}}}"
    return text


def _flow(values: Mapping[str, object]) -> str:
    return json.dumps(values)
