"""How answers come about: a place is waited for, the model works, and each message is said when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from ...backends import CallContext
from ...core.answer import Finish, GenerateEvent
from ...core.content import ClassifyInput, EmbedInput, GenerateInput, InferInput
from ...core.failure import AttemptError, FailureKind
from ...protos.v1 import model_service_pb2 as wire
from .responses import classification_bytes, delta_bytes, embeddings_bytes, finish_bytes, inference_bytes
from .served import Served


async def generated(
    served: Served, call: GenerateInput, context: CallContext, place: str
) -> AsyncGenerator[bytes, None]:
    """A generation's messages, numbered from 1."""
    clock, sequence = Clock(), 0
    async with aclosing(events(served, call, context, clock)) as said:
        async for event in said:
            sequence += 1
            if isinstance(event, Finish):
                yield finish_bytes(event, sequence, _origin(served, event.model, place), clock.timings())
            else:
                yield delta_bytes(event, sequence)


async def events(
    served: Served, call: GenerateInput, context: CallContext, clock: Clock
) -> AsyncGenerator[GenerateEvent, None]:
    """A generation from its place in the queue to its `Finish`, which is the last event or a failure."""
    async with served.admission.place(context.priority, start_by(context)):
        clock.has_place()
        said = served.backend.generate(call, context)
        try:
            event = await _first(said, context)
            while event is not None:
                if isinstance(event, Finish):
                    yield event
                    return
                clock.has_text()
                served.pace.count(event.tokens)
                yield event
                event = await anext(said, None)
        finally:
            await said.aclose()
    raise AttemptError(FailureKind.TRUNCATED, "the model stopped without saying why")


async def embedded(served: Served, call: EmbedInput, context: CallContext, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with all vectors."""
    clock = Clock()
    async with served.admission.place(context.priority, start_by(context)):
        clock.has_place()
        embeddings = await served.backend.embed(call, context)
    yield embeddings_bytes(embeddings, _origin(served, embeddings.model, place), clock.timings())


async def classified(
    served: Served, call: ClassifyInput, context: CallContext, place: str
) -> AsyncGenerator[bytes, None]:
    """The one message with all scores."""
    clock = Clock()
    async with served.admission.place(context.priority, start_by(context)):
        clock.has_place()
        judged = await served.backend.classify(call, context)
    yield classification_bytes(judged, _origin(served, judged.model, place), clock.timings())


async def inferred(served: Served, call: InferInput, context: CallContext, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with all output tensors."""
    clock = Clock()
    async with served.admission.place(context.priority, start_by(context)):
        clock.has_place()
        inference = await served.backend.infer(call, context)
    yield inference_bytes(inference, _origin(served, inference.model, place), clock.timings())


def start_by(context: CallContext) -> float:
    """Until when a call may wait for its place."""
    return min(bound.at for bound in (context.deadline, context.first_by, context.start_by) if bound is not None)


async def _first(said: AsyncGenerator[GenerateEvent, None], context: CallContext) -> GenerateEvent | None:
    if context.first_by is None:
        return await anext(said, None)
    try:
        async with asyncio.timeout_at(context.first_by.at):
            return await anext(said, None)
    except TimeoutError:
        pass
    raise AttemptError(FailureKind.TIMED_OUT, "no first token came in the time that the call gives it")


def _origin(served: Served, model: str, place: str) -> wire.Origin:
    version = served.backend.capabilities.model_version
    return wire.Origin(model=model or served.name, place=place, load=served.load(), model_version=version)


@dataclass(slots=True)
class Clock:
    """When what happened, on the loop's clock."""

    arrived: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    began: float = 0.0
    first: float | None = None

    def has_place(self) -> None:
        """The call has its place."""
        self.began = asyncio.get_running_loop().time()

    def has_text(self) -> None:
        """Text has come."""
        if self.first is None:
            self.first = asyncio.get_running_loop().time()

    def timings(self) -> wire.Timings:
        """What it all took until now."""
        return wire.Timings(
            queued_ms=_ms(self.began - self.arrived),
            first_token_ms=None if self.first is None else _ms(self.first - self.began),
            total_ms=_ms(asyncio.get_running_loop().time() - self.arrived),
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
