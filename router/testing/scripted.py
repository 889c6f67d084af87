"""A backend that does as it is told, and remembers what it received."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from ...backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from ...core.answer import Classification, Delta, Embeddings, Finish, FinishReason, GenerateEvent, Inference, Usage
from ...core.content import ClassifyInput, Content, CountTokensInput, EmbedInput, GenerateInput, InferInput, Tensor
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task


@dataclass(frozen=True, slots=True)
class Script:
    """How one call goes. Times are seconds.

    The answer's words come one by one: the first ``first_after`` from the start, the others ``every`` apart.
    ``failure`` is raised after ``fails_after`` words (0: before the first). ``silent_after`` words, nothing comes any
    more. ``ends_without_finish`` cuts the stream after the last word. After so many words as each number in
    ``lost_after`` says, the connection is lost; a backend whose capabilities say that it resumes has the rest.
    """

    words: tuple[str, ...] = ("a ", "scripted ", "answer")
    first_after: float = 0.01
    every: float = 0.001
    failure: AttemptError | None = None
    fails_after: int = 0
    silent_after: int | None = None
    ends_without_finish: bool = False
    lost_after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A call as the backend received it, and how it ended: ``answered``, ``failed``, ``lost`` or ``cancelled``."""

    content: Content = field(repr=False)
    context: CallContext
    outcome: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A wish to go on with a stream after so many of its events."""

    after: int
    context: CallContext


_EVERYTHING = Capabilities(
    tasks=frozenset(Task), context_tokens=None, continues=True, constrains=True, logprobs=True, max_concurrency=64
)


class ScriptedBackend(Backend):
    """A backend that answers by a `Script`, or by one chosen for each call.

    ``script`` may be a function of the call's number, from 0. Embeddings are ``[n, 2]``: each text's length and 1. An
    inference gives its inputs back. ``calls`` holds everything it received, ``resumptions`` every stream
    that was taken up again.
    """

    def __init__(
        self,
        name: str,
        script: Script | Callable[[int], Script] | None = None,
        *,
        capabilities: Capabilities = _EVERYTHING,
        health: BackendHealth | None = None,
    ) -> None:
        super().__init__(name)
        self._script = script if script is not None else Script()
        self._capabilities = capabilities
        self.reported_health = health or BackendHealth(HealthState.READY)
        self.calls: list[ReceivedCall] = []
        self.resumptions: list[Resumption] = []
        self._streams: dict[str, tuple[Script, ReceivedCall, int]] = {}
        self._pauses: set[asyncio.Future[None]] = set()
        self._stopped = False

    @property
    def capabilities(self) -> Capabilities:
        """As given."""
        return self._capabilities

    def health(self) -> BackendHealth:
        """``reported_health``, which a test may set; DOWN once stopped."""
        return self._stopped_health if self._stopped else self.reported_health

    async def start(self) -> None:
        """Answer, also after a stop."""
        self._stopped = False

    async def stop(self) -> None:
        """End all calls with PREEMPTED, and refuse more."""
        self._stopped = True
        for pause in self._pauses:
            if not pause.done():
                pause.set_exception(self._preempted())

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """The script's words, one `Delta` each."""
        script, received = self._receive(call, context)
        if context.stream and self._capabilities.resumes:
            self._streams[context.stream] = script, received, len(call.messages)
        async with aclosing(self._say(script, received, len(call.messages), 0)) as events:
            async for event in events:
                yield event

    async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """The words that follow the first ``after`` ones."""
        self._refuse_late(context)
        self.resumptions.append(Resumption(after, context))
        known = self._streams.get(context.stream)
        if self._stopped:
            raise self._preempted()
        if known is None:
            raise AttemptError(FailureKind.CONFLICT, f"backend {self.name!r} does not know this stream")
        async with aclosing(self._say(*known, after)) as events:
            async for event in events:
                yield event

    async def _say(
        self, script: Script, received: ReceivedCall, prompt_tokens: int, start: int
    ) -> AsyncGenerator[GenerateEvent, None]:
        received.outcome.clear()
        try:
            for index, word in enumerate(script.words[start:], start):
                if script.silent_after == index:
                    await self._pause(None)
                await self._pause(script.every if index else script.first_after)
                self._lose(script, received, index, start)
                if script.failure is not None and script.fails_after == index:
                    received.outcome.append("failed")
                    raise script.failure
                yield Delta(word)
            self._lose(script, received, len(script.words), start)
            if script.failure is not None:
                received.outcome.append("failed")
                raise script.failure
            received.outcome.append("answered")
            if not script.ends_without_finish:
                usage = Usage(prompt_tokens=prompt_tokens, output_tokens=len(script.words))
                yield Finish(FinishReason.STOP, usage, model=f"{self.name}-model", place=self.name)
        finally:
            if not received.outcome:
                received.outcome.append("cancelled")

    def _lose(self, script: Script, received: ReceivedCall, index: int, start: int) -> None:
        if index in script.lost_after and index > start:
            received.outcome.append("lost")
            raise AttemptError(FailureKind.UNREACHABLE, f"the connection to backend {self.name!r} was lost")

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """One row a text: its length, and 1."""
        await self._answer_at_once(call, context)
        data = b"".join(struct.pack("<2f", len(text), 1.0) for text in call.texts)
        return Embeddings(Tensor("float32", (len(call.texts), 2), data), model=f"{self.name}-model", place=self.name)

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        """Two labels: a text is the more ``long`` the longer it is, and else ``short``."""
        await self._answer_at_once(call, context)
        shares = [1.0 / (1.0 + len(text) / 100) for text in call.texts]
        data = b"".join(struct.pack("<2f", share, 1.0 - share) for share in shares)
        scores = Tensor("float32", (len(call.texts), 2), data)
        return Classification(("short", "long"), scores, model=f"{self.name}-model", place=self.name)

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        """The inputs, as outputs."""
        await self._answer_at_once(call, context)
        return Inference(dict(call.inputs), model=call.model, place=self.name)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        """One token a message, as in the usage of a generation."""
        await self._answer_at_once(call, context)
        return len(call.messages)

    async def _answer_at_once(self, call: Content, context: CallContext) -> None:
        script, received = self._receive(call, context)
        try:
            if script.silent_after is not None:
                await self._pause(None)
            await self._pause(script.first_after)
            received.outcome.append("answered" if script.failure is None else "failed")
            if script.failure is not None:
                raise script.failure
        finally:
            if not received.outcome:
                received.outcome.append("cancelled")

    def _receive(self, call: Content, context: CallContext) -> tuple[Script, ReceivedCall]:
        if self._stopped:
            raise self._preempted()
        self._refuse_late(context)
        script = self._script if isinstance(self._script, Script) else self._script(len(self.calls))
        received = ReceivedCall(call, context)
        self.calls.append(received)
        return script, received

    def _refuse_late(self, context: CallContext) -> None:
        if context.deadline.passed(asyncio.get_running_loop().time()):
            raise AttemptError(FailureKind.TIMED_OUT, f"the deadline had passed before backend {self.name!r} began")

    async def _pause(self, seconds: float | None) -> None:
        """Wait so long, or for ever, or until it is stopped."""
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _end, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            if timer is not None:
                timer.cancel()

    def _preempted(self) -> AttemptError:
        return AttemptError(FailureKind.PREEMPTED, f"backend {self.name!r} was stopped")

    @property
    def _stopped_health(self) -> BackendHealth:
        return BackendHealth(HealthState.DOWN, f"backend {self.name!r} was stopped")


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
