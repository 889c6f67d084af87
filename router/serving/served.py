"""What is offered: the models by their names here, and which of them a call means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...backends import Backend, HealthState, ModelSignature
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ...protos.v1 import model_service_pb2 as wire
from .admission import Admission
from .load import Pace
from .responses import TASKS


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is offered: its name here, who does the work, the places there, and how fast it has been lately.

    ``counting`` are the places of those who only have tokens counted.
    """

    name: str
    backend: Backend
    admission: Admission
    counting: Admission
    pace: Pace

    def can(self, task: Task) -> bool:
        """Whether it does this kind of work."""
        return task in self.backend.capabilities.tasks

    def signature(self, name: str) -> ModelSignature | None:
        """The tensors of its model of this name, or of its only one; ``None`` where they are not known."""
        models = self.backend.capabilities.models or frozenset()
        meant = name if name in models or len(models) != 1 else next(iter(models))
        return self.backend.signature(meant)

    def is_ready(self) -> bool:
        """Whether it takes calls now."""
        return self.backend.health().state is HealthState.READY

    def load(self) -> wire.Load:
        """How busy it is now."""
        return wire.Load(
            queue_depth=self.admission.waiting,
            running=self.admission.running,
            tokens_per_second=self.pace.tokens_per_second(),
        )

    def description(self) -> wire.Model:
        """What a client may know of it."""
        can = self.backend.capabilities
        return wire.Model(
            name=self.name,
            tasks=[TASKS[task] for task in sorted(can.tasks & TASKS.keys())],
            context_tokens=can.context_tokens,
            continues=can.continues,
            constrains=can.constrains,
            logprobs=can.logprobs,
            ready=self.is_ready(),
            load=self.load(),
        )


class Roster:
    """All that is offered."""

    def __init__(self, backends: Mapping[str, Backend], max_waiting: int) -> None:
        def places(backend: Backend) -> Admission:
            return Admission(backend.capabilities.max_concurrency, max_waiting)

        self._served = {
            name: Served(name, backend, places(backend), places(backend), Pace()) for name, backend in backends.items()
        }

    def descriptions(self) -> list[wire.Model]:
        """All of them."""
        return [served.description() for served in self._served.values()]

    def any_ready(self) -> bool:
        """Whether one of them takes calls now."""
        return any(served.is_ready() for served in self._served.values())

    def named(self, name: str) -> Served:
        """The model of this name. Raises `AttemptError` where there is none."""
        served = self._served.get(name)
        if served is None:
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, "no model of this name is served here")
        return served

    def meant(self, name: str) -> Served:
        """What has a model of this name, or is it. Raises `AttemptError` where there is none."""
        with_it = (served for served in self._served.values() if name in (served.backend.capabilities.models or ()))
        return next(with_it, None) or self.named(name)

    def choose(self, name: str, task: Task) -> Served:
        """The model that is meant; without a name, the only one that can. Raises `AttemptError`."""
        if name:
            served = self.named(name)
            if not served.can(task):
                raise AttemptError(FailureKind.UNSUPPORTED, f"this model cannot {task}")
            return served
        able = [served for served in self._served.values() if served.can(task)]
        if not able:
            raise AttemptError(FailureKind.UNSUPPORTED, f"no model here can {task}")
        if len(able) > 1:
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, f"several models here can {task}; name one")
        return able[0]

    def choose_inference(self, name: str) -> tuple[Served, str]:
        """Who infers, and by which of its models: found by the model's name, or by the server's where it has one."""
        for served in self._served.values():
            models = served.backend.capabilities.models
            if served.can(Task.INFER) and models is not None and name in models:
                return served, name
        served = self.choose(name, Task.INFER)
        models = served.backend.capabilities.models
        if models is None:
            return served, name or served.name
        if len(models) > 1:
            raise AttemptError(FailureKind.UNKNOWN_MODEL, "several models here can infer; name one")
        return served, next(iter(models))
