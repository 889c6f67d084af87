"""Configurations over two kinds of backends that need no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from edgewise.backends import Backend, BackendHealth, Capabilities, HealthState
from edgewise.backends.models import ModelFile
from edgewise.backends.registry import BackendKind
from edgewise.core.errors import ConfigurationError
from edgewise.core.problem import Problem
from edgewise.core.request import Task
from edgewise.core.settings import ByteSize, FilePath, Fraction, ModelName, Seconds, Secret
from edgewise.router.config import Configuration, loads


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """An engine on this device."""

    model: Annotated[ModelName, "the model"]
    context_tokens: Annotated[int, "the context"] = 2048


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server is proven."""

    root_certificates: Annotated[FilePath | None, "PEM"] = None


@dataclass(frozen=True, slots=True)
class FarSettings:
    """A server, with a field of every type that people write."""

    target: Annotated[str, "where it listens"]
    tls: Annotated[Tls | None, "how the server is proven"] = None
    credentials: Annotated[Secret | None, "its key"] = None
    metadata: Annotated[Mapping[str, Secret], "more keys"] = field(default_factory=dict)
    tasks: Annotated[tuple[Task, ...], "what it can do"] = (Task.GENERATE,)
    timeout: Annotated[Seconds, "a time"] = Seconds(1.0)  # noqa: RUF009  # a NewType is the float itself
    buffer: Annotated[ByteSize, "a size"] = ByteSize(1)  # noqa: RUF009
    share: Annotated[Fraction, "a share"] = Fraction(0.5)  # noqa: RUF009
    weight: Annotated[float, "a number"] = 1.0
    eager: Annotated[bool, "a choice"] = False


class Unopened(Backend):
    """Has capabilities and nothing else."""

    def __init__(self, name: str, capabilities: Capabilities) -> None:
        super().__init__(name)
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.DOWN, "it is never opened")


def build_local(name: str, settings: LocalSettings, models: Mapping[str, ModelFile]) -> Backend:
    assert models[settings.model].name == settings.model
    return Unopened(name, Capabilities(frozenset(Task), context_tokens=settings.context_tokens, continues=True))


def build_far(name: str, settings: FarSettings, models: Mapping[str, ModelFile]) -> Backend:
    return Unopened(name, Capabilities(frozenset(settings.tasks)))


def check_far(settings: FarSettings) -> list[Problem]:
    return [Problem("nobody weighs less than nothing", "write more", ("weight",))] if settings.weight < 0 else []


KINDS = {
    "local": BackendKind("local", LocalSettings, on_device=True, build=build_local),
    "far": BackendKind("far", FarSettings, on_device=False, build=build_far, check=check_far),
}


BACKENDS = "version: 1\nmodels: {m: {source: 'file:m'}}\nbackends:\n  a: {kind: far, target: x}\n"
FAR = "version: 1\nbackends:\n  a:\n    kind: far\n    target: x\n"
POLICY = BACKENDS + "policy:\n  data_classes: {public: {process_in: [any]}}\n"

Mistakes = Callable[..., list[Problem]]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Configuration]:
    """Reads a text as a configuration of the kinds `local` and `far`."""

    def read(text: str, **environment: str) -> Configuration:
        return loads(text, tmp_path, file="edgewise.yaml", environment=environment, kinds=KINDS)

    return read


@pytest.fixture
def mistakes(read: Callable[..., Configuration]) -> Mistakes:
    """The problems of a text that is no configuration."""

    def mistakes(text: str, **environment: str) -> list[Problem]:
        with pytest.raises(ConfigurationError) as caught:
            read(text, **environment)
        return list(caught.value.problems)

    return mistakes
