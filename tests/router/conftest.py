"""Routers over scripted backends, by a configuration like a user's."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, AttemptError, Chunk, FailureKind
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend

BACKENDS = {
    "cloud": """
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    location: {process_in: [NL], store_in: [], operators: [US], evidence: contractual}
    quality: 0.9
    price: {input: 1.0, output: 10.0}
    context_tokens: 100000
""",
    "gateway": """
  gateway:
    kind: grpc
    target: 127.0.0.1:50052
    location: {process_in: ["site:praxis"], store_in: [], operators: [DE], evidence: contractual}
    quality: 0.6
    price: {input: 0.5, output: 5.0}
    context_tokens: 8000
""",
    "gemini": """
  gemini:
    kind: grpc
    protocol: gemini
    model: tiny
    target: 127.0.0.1:50053
    location: {process_in: [any], store_in: [any], operators: [US]}
    quality: 0.9
    price: {input: 1.0, output: 10.0}
""",
    "phone": """
  phone:
    kind: llama_cpp
    model: tiny
    location: device
    quality: 0.3
    context_tokens: 2000
""",
    **{
        name: f"""
  {name}:
    kind: onnx
    task: classify
    model: tiny
    tokenizer: tiny
    labels: [short, long]
    location: device
"""
        for name in ("moods", "more-moods")
    },
}
POLICY = """
policy:
  sites: {praxis: {in: DE}}
  data_classes:
    public: {process_in: [any]}
    personal: {process_in: [EU], operators: [EU, US]}
    health: {process_in: ["site:praxis"], operators: [DE], evidence: contractual}
    secret: {process_in: []}
  default_data_class: personal
  defaults: {latency_budget: 30s, order: [quality]}
  tags: {department: [ward, office]}
"""

RouterMaker = Callable[..., AsyncRouter]

BROKEN = AttemptError(FailureKind.UNREACHABLE, "the connection broke")


def failing(kind: FailureKind, retry_after: float | None = None) -> Script:
    return Script(failure=AttemptError(kind, f"it is {kind}", retry_after=retry_after))


async def collect(router: AsyncRouter, **options: Any) -> list[Chunk]:
    return [chunk async for chunk in router.stream("Hello", data_class="public", **options)]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_router(tmp_path: Path) -> RouterMaker:
    """Makes a router over these scripted backends, called as in `BACKENDS`; ``policy`` adds to its policy."""

    def make(
        *backends: ScriptedBackend, policy: str = "", sample: Callable[[], DeviceFacts] = DeviceFacts
    ) -> AsyncRouter:
        sections = "".join(BACKENDS[backend.name].lstrip("\n") for backend in backends)
        text = f'version: 1\nmodels:\n  tiny: {{source: "file:tiny.gguf"}}\nbackends:\n{sections}{POLICY}{policy}'
        return AsyncRouter(
            loads(text, tmp_path),
            backends={backend.name: backend for backend in backends},
            random_source=random.Random(7),
            wall_clock=lambda: datetime(2026, 3, 2, 9, 30),
            sample=sample,
        )

    return make
