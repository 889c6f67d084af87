"""A backend that keeps every promise of the contract, in pieces that a test can break one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy

from edgewise.backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from edgewise.backends.backend import ModelSignature, TensorSpec
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.answer import (
    Classification,
    Delta,
    Embeddings,
    Finish,
    FinishReason,
    GenerateEvent,
    Inference,
    TokenLogprob,
    Usage,
)
from edgewise.core.content import ClassifyInput, CountTokensInput, EmbedInput, GenerateInput, InferInput, Message
from edgewise.core.errors import InvalidRequest
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task

CONTEXT = 200
PLACES = 2
LABELS = ("long", "short")


class Sound(Backend):
    """A model of a few words. What it says depends on all that was said to it, and at a temperature on the seed."""

    labels: tuple[str, ...] = LABELS

    def __init__(self) -> None:
        super().__init__("sound")
        self.places = asyncio.Semaphore(PLACES)
        self.state = HealthState.LOADING
        self.settled = asyncio.Event()
        self.working: set[object] = set()
        self.streams: dict[str, list[GenerateEvent]] = {}
        self.connections = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            frozenset(Task),
            context_tokens=CONTEXT,
            continues=True,
            constrains=True,
            logprobs=True,
            resumes=True,
            max_concurrency=PLACES,
            models=frozenset({"double"}),
        )

    def health(self) -> BackendHealth:
        return BackendHealth(self.state)

    def signature(self, model: str) -> ModelSignature | None:
        specs = tuple((TensorSpec(name, "float32", (None, 3)),) for name in "xy")
        return ModelSignature(*specs) if model == "double" else None

    async def start(self) -> None:
        await asyncio.sleep(0.001)
        self.state = HealthState.READY
        self.settled.set()

    async def stop(self) -> None:
        self.state = HealthState.DOWN
        self.settled.set()

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        async with self.place(context):
            return Embeddings(to_tensor(self.rows(call.texts)), Usage())

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        async with self.place(context):
            return Classification(self.labels, to_tensor(self.rows(call.texts)), Usage())

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        if call.model != "double":
            raise AttemptError(FailureKind.UNKNOWN_MODEL, "there is no such model")
        async with self.place(context):
            try:
                (array,) = [to_array(tensor) for name, tensor in call.inputs.items() if name == "x"]
            except (InvalidRequest, ValueError):
                raise AttemptError(FailureKind.INVALID_REQUEST, "these are no tensors of the model's") from None
            return Inference({"y": to_tensor(array + array)}, model=call.model)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        await self.ready(context)
        return self.length(call.messages)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        async with self.place(context):
            if self.length(call.messages) >= CONTEXT:
                raise AttemptError(FailureKind.CONTEXT_LENGTH, "the prompt is too long")
            connections = self.connections
            self.streams[context.stream] = list(self.events(call))
            for event in self.streams[context.stream]:
                await asyncio.sleep(0)
                self.require_running()
                if self.connections != connections:
                    raise AttemptError(FailureKind.UNREACHABLE, "the connection was lost")
                yield event

    async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        await self.ready(context)
        if context.stream not in self.streams:
            raise AttemptError(FailureKind.CONFLICT, "there is no such stream")
        for event in self.streams[context.stream][after:]:
            yield event

    @asynccontextmanager
    async def place(self, context: CallContext) -> AsyncIterator[None]:
        """A place in the engine, for a call that may begin."""
        await self.ready(context)
        async with self.places:
            work = object()
            self.working.add(work)
            try:
                await asyncio.sleep(0)
                self.require_running()
                yield
            finally:
                self.working.discard(work)

    async def ready(self, context: CallContext) -> None:
        self.require_time(context)
        await self.settled.wait()
        self.require_running()

    def require_time(self, context: CallContext) -> None:
        if context.deadline.passed(asyncio.get_running_loop().time()):
            raise AttemptError(FailureKind.TIMED_OUT, "the deadline had passed")

    def require_running(self) -> None:
        if self.state is HealthState.DOWN:
            raise AttemptError(FailureKind.PREEMPTED, "it was stopped")

    def length(self, messages: Sequence[Message]) -> int:
        return sum(2 + len(self.text(message).split()) for message in messages)

    def text(self, message: Message) -> str:
        try:
            message.text.encode()
        except UnicodeEncodeError:
            raise AttemptError(FailureKind.INVALID_REQUEST, "the prompt is no Unicode") from None
        return message.text

    def rows(self, texts: Sequence[str]) -> numpy.ndarray:
        rows = [[len(text), 1.0 + text.count("a")] for text in map(self.text, map(Message.user, texts))]
        return numpy.array(rows, dtype=numpy.float32).reshape(len(texts), 2)

    def events(self, call: GenerateInput) -> Iterator[GenerateEvent]:
        """The whole stream of one call."""
        words = self.words(call)
        said, reason = "", FinishReason.STOP
        count = 0
        for word in words:
            if count == call.max_output_tokens:
                reason = FinishReason.LENGTH
                break
            text = self.before_stop(said + word, call.stop)[len(said) :]
            count += 1
            if text:
                yield Delta(text, 1, self.logprobs(text, call))
            if text != word:
                break
            said += word
        yield self.finish(reason, Usage(self.length(call.messages), count))

    def finish(self, reason: FinishReason, usage: Usage) -> Finish:
        return Finish(reason, usage, model="sound", place="device")

    def words(self, call: GenerateInput) -> list[str]:
        """All that it has to say, or has yet to say where it has begun."""
        if call.response_format is not None:
            return self.in_form(call)
        begun = self.text(call.messages[-1]) if call.continues else ""
        asked = call.messages[:-1] if call.continues else call.messages
        chance = random.Random(self.cause(asked, call))
        words = [f"{chance.choice(('one', 'two', 'three', 'four'))} " for _ in range(20)]
        while begun and words and begun.startswith(words[0]):
            begun = begun.removeprefix(words.pop(0))
        return words

    def cause(self, asked: Sequence[Message], call: GenerateInput) -> str:
        """What decides about the answer."""
        return f"{[self.text(message) for message in asked]} {call.seed if call.temperature > 0 else 0}"

    def in_form(self, call: GenerateInput) -> list[str]:
        form = call.response_format or {}
        if form.get("type") != "json_schema" or "$ref" in form["schema"]:
            raise AttemptError(FailureKind.INVALID_REQUEST, "it cannot keep to this form")
        return ['{"sure": ', "true", "}"]

    def before_stop(self, text: str, stop: Sequence[str]) -> str:
        for each in stop:
            self.text(Message.user(each))
        return min((text.partition(each)[0] for each in stop), key=len, default=text)

    def logprobs(self, text: str, call: GenerateInput) -> tuple[TokenLogprob, ...]:
        return () if call.logprobs is None else (TokenLogprob(text, -0.5, ((text, -0.5), ("no", -1.0))),)
