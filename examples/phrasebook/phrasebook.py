"""A backend of one's own: it answers every prompt with the same phrase, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated

from edgewise.backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from edgewise.backends.registry import BackendKind
from edgewise.core.answer import Delta, Finish, FinishReason, GenerateEvent, Usage
from edgewise.core.content import GenerateInput
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.core.settings import Seconds


@dataclass(frozen=True, slots=True)
class PhrasebookSettings:
    phrase: Annotated[str, "what it answers"]
    pace: Annotated[Seconds, "the time between two words"]


class Phrasebook(Backend):
    def __init__(self, name: str, settings: PhrasebookSettings) -> None:
        super().__init__(name)
        self._settings = settings
        self._stopped = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({Task.GENERATE}), max_concurrency=16)

    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.DOWN, "it was stopped") if self._stopped else BackendHealth(HealthState.READY)

    async def stop(self) -> None:
        self._stopped = True

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        if context.deadline.passed(asyncio.get_running_loop().time()):
            raise AttemptError(FailureKind.TIMED_OUT, f"the deadline had passed before {self.name!r} began")
        words = self._settings.phrase.split()
        for word in words[: call.max_output_tokens]:
            await asyncio.sleep(self._settings.pace)
            if self._stopped:
                raise AttemptError(FailureKind.PREEMPTED, f"backend {self.name!r} was stopped")
            yield Delta(f"{word} ")
        whole = len(words) <= call.max_output_tokens
        usage = Usage(output_tokens=min(len(words), call.max_output_tokens))
        yield Finish(FinishReason.STOP if whole else FinishReason.LENGTH, usage, model="phrasebook", place="device")


KIND = BackendKind(
    "phrasebook", PhrasebookSettings, on_device=True, build=lambda name, settings, models: Phrasebook(name, settings)
)
