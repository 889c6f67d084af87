"""How answers come about: a place is waited for, the model works, and each message is said when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from ...core.answer import Finish, GenerateEvent
from ...core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput
from ...core.failure import AttemptError, FailureKind
from ...protos.v1 import model_service_pb2 as wire
from .admission import Admission
from .demand import Demand, first_by
from .responses import classification_bytes, count_bytes, delta_bytes, embeddings_bytes, finish_bytes, inference_bytes
from .served import Served

A = TypeVar("A")


async def generated(served: Served, call: GenerateInput, demand: Demand, place: str) -> AsyncGenerator[bytes, None]:
    """A generation's messages, numbered from 1."""
    clock, sequence = Clock(), 0
    async with aclosing(events(served, call, demand, clock)) as said:
        async for event in said:
            sequence += 1
            if isinstance(event, Finish):
                yield finish_bytes(event, sequence, _origin(served, event.model, place), clock.timings())
            else:
                yield delta_bytes(event, sequence)


async def events(
    served: Served, call: GenerateInput, demand: Demand, clock: Clock
) -> AsyncGenerator[GenerateEvent, None]:
    """A generation from its place in the queue to its `Finish`, which is the last event or a failure."""
    async with served.admission.place(demand):
        clock.has_place()
        said = served.backend.generate(call, demand.context)
        try:
            event = await _first(said, demand)
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


async def embedded(served: Served, call: EmbedInput, demand: Demand, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with all vectors."""
    clock = Clock()
    embeddings = await _at(served.admission, demand, clock, lambda: served.backend.embed(call, demand.context))
    yield embeddings_bytes(embeddings, _origin(served, embeddings.model, place), clock.timings())


async def classified(served: Served, call: ClassifyInput, demand: Demand, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with all scores."""
    clock = Clock()
    judged = await _at(served.admission, demand, clock, lambda: served.backend.classify(call, demand.context))
    yield classification_bytes(judged, _origin(served, judged.model, place), clock.timings())


async def inferred(served: Served, call: InferInput, demand: Demand, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with all output tensors."""
    clock = Clock()
    inference = await _at(served.admission, demand, clock, lambda: served.backend.infer(call, demand.context))
    yield inference_bytes(inference, _origin(served, inference.model, place), clock.timings())


async def counted(served: Served, call: CountTokensInput, demand: Demand, place: str) -> AsyncGenerator[bytes, None]:
    """The one message with a count. Counts have places of their own, because models count beside a generation."""
    clock = Clock()
    tokens = await _at(served.counting, demand, clock, lambda: served.backend.count_tokens(call, demand.context))
    yield count_bytes(tokens, _origin(served, "", place), clock.timings())


async def _at(places: Admission, demand: Demand, clock: Clock, work: Callable[[], Awaitable[A]]) -> A:
    """What the work gives once it has a place."""
    async with places.place(demand):
        clock.has_place()
        return await work()


async def _first(said: AsyncGenerator[GenerateEvent, None], demand: Demand) -> GenerateEvent | None:
    if demand.context.first_by is None:
        return await anext(said, None)
    try:
        async with demand.until(first_by):
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
