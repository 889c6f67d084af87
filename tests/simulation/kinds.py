"""The kinds of simulated backends, as a configuration names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from edgewise.backends import Backend, BackendHealth, Capabilities, HealthState
from edgewise.backends.models import ModelFile
from edgewise.backends.registry import BackendKind
from edgewise.core.request import Task


@dataclass(frozen=True, slots=True)
class SimulatedSettings:
    """What the configuration of a simulated backend says of it."""

    tasks: Annotated[tuple[str, ...], "what it can do"]
    context_tokens: Annotated[int, "prompt and answer together"]
    continues: Annotated[bool, "it continues the assistant's text"]
    resumes: Annotated[bool, "a stream that was lost goes on"]
    logprobs: Annotated[bool, "it reports log-probabilities"]
    max_concurrency: Annotated[int, "calls at once"]


class Configured(Backend):
    """Stands for a simulated backend in the configuration. The world's own replace it before any call."""

    def __init__(self, name: str, settings: SimulatedSettings) -> None:
        super().__init__(name)
        self._capabilities = Capabilities(
            tasks=frozenset(map(Task, settings.tasks)),
            context_tokens=settings.context_tokens,
            continues=settings.continues,
            constrains=True,
            logprobs=settings.logprobs,
            resumes=settings.resumes,
            max_concurrency=settings.max_concurrency,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.READY)


def _build(name: str, settings: SimulatedSettings, models: Mapping[str, ModelFile]) -> Backend:
    return Configured(name, settings)


KINDS = {
    name: BackendKind(name, SimulatedSettings, on_device=on_device, build=_build)
    for name, on_device in (("simulated_device", True), ("simulated_remote", False))
}
