"""Backends that behave as a world says, in virtual time, and keep a record of what they received and said."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from edgewise.backends import BackendHealth, CallContext, HealthState
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
from edgewise.core.content import (
    ClassifyInput,
    Content,
    CountTokensInput,
    EmbedInput,
    GenerateInput,
    InferInput,
    Role,
    Tensor,
)
from edgewise.core.failure import AttemptError, FailureKind

from .faults import LOST, Fault, Manner
from .kinds import Configured, SimulatedSettings
from .requests import SAID, STOP
from .world import BackendPlan, Episode

_TO_NOTICE = 0.001
"""Seconds in which a call notices that it was cancelled."""


@dataclass(slots=True)
class Call:
    """A call as the backend received it.

    ``era`` counts the versions of the policy up to then, and ``again_in`` holds those in which it was taken up again.
    ``partial`` is the assistant's text that it is to continue. ``finished``: the backend ended it by itself; ``whole``:
    with a finish.
    """

    number: int
    backend: str
    request_id: str
    content: Content
    partial: str
    began: float
    era: int
    again_in: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    finished: bool = False
    whole: bool = False
    ended: float | None = None
    slow_to_stop: float = 0.0
    wait: asyncio.Future[None] | None = None
    doom: AttemptError | None = None


class SimulatedBackend(Configured):
    """One backend of a world. ``calls`` holds all that it received; ``broken`` what nobody may ask of it."""

    def __init__(self, plan: BackendPlan, seed: int) -> None:
        settings = SimulatedSettings(
            plan.tasks, plan.context_tokens, plan.continues, plan.resumes, plan.logprobs, plan.max_concurrency
        )
        super().__init__(plan.name, settings)
        self.plan = plan
        self.calls: list[Call] = []
        self.broken: list[str] = []
        self.era = 0
        self._running: dict[int, Call] = {}
        self._streams: dict[str, tuple[Call, GenerateInput, list[str]]] = {}
        self.resumptions = 0
        self._random = random.Random(f"{plan.name} {seed}")
        self._loaded_at = math.inf
        self._lasting: Fault | None = None

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._running)

    def health(self) -> BackendHealth:
        """Loading after the start, and after a crash."""
        loading = asyncio.get_running_loop().time() < self._loaded_at
        return BackendHealth(HealthState.LOADING if loading else HealthState.READY)

    async def start(self) -> None:
        """Load."""
        loop = asyncio.get_running_loop()
        self._loaded_at = loop.time() + self.plan.load
        for episode in self.plan.episodes:
            loop.call_at(episode.start, self._strike, episode)
        await asyncio.sleep(self.plan.load)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Words that no other call says."""
        with self._taken(call, context) as taken:
            if call.logprobs is not None and not self.plan.logprobs:
                self.broken.append("was asked for log-probabilities, which it has not")
            words = self._answer(taken, call)
            if self.plan.resumes and context.stream:
                self._streams[context.stream] = taken, call, words
            fault, after = self._fate(taken, len(words))
            async with aclosing(self._say(taken, call, words, 0, fault, after)) as events:
                async for event in events:
                    yield event

    async def resume(self, after: int, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """The words that follow the first ``after`` ones."""
        known = self._streams.get(context.stream)
        if known is None:
            self.broken.append("was asked to go on with a stream that it never began")
            return
        taken, call, words = known
        if after > len(taken.said):
            self.broken.append("was asked to go on after words that it never said")
        self.resumptions += 1
        with self._again(taken):
            fault = LOST if self._random.random() < 0.3 else self._episode()
            lost_at = after + self._random.randint(0, len(words) - after)
            async with aclosing(self._say(taken, call, words, after, fault, lost_at)) as events:
                async for event in events:
                    yield event

    async def _say(
        self, taken: Call, call: GenerateInput, words: list[str], start: int, fault: Fault | None, after: int
    ) -> AsyncGenerator[GenerateEvent, None]:
        try:
            await self._loaded(taken)
            every = self.plan.every
            for at in range(start, len(words) + 1):
                if fault is not None and at == after:
                    if fault.manner is Manner.CUT:
                        taken.finished = True
                        return
                    every = await self._suffer(fault, taken, every)
                if at == len(words):
                    break
                pause = every if at else self.plan.first_after
                await self._pause(taken, pause * self._random.uniform(0.8, 1.3))
                if at == len(taken.said):
                    taken.said.append(words[at])
                yield Delta(words[at], 1, () if call.logprobs is None else (TokenLogprob(words[at], -0.5),))
            taken.finished = taken.whole = True
            usage = Usage(taken.number, len(words))
            yield Finish(FinishReason.STOP, usage, f"{self.name}-model", self.name)
        finally:
            if not taken.finished and taken.slow_to_stop:
                await asyncio.sleep(taken.slow_to_stop)

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """Each text's length, and the call's number."""
        with self._taken(call, context) as taken:
            await self._work(taken)
            data = b"".join(struct.pack("<2f", len(text), taken.number) for text in call.texts)
            return Embeddings(Tensor("float32", (len(call.texts), 2), data), model=f"{self.name}-model")

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        """The inputs, as outputs."""
        with self._taken(call, context) as taken:
            await self._work(taken)
            return Inference(dict(call.inputs), model=f"{self.name}-model")

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        """The call's number, and its negative, for each text."""
        with self._taken(call, context) as taken:
            await self._work(taken)
            scores = Tensor(
                "float32", (len(call.texts), 2), struct.pack("<2f", -taken.number, taken.number) * len(call.texts)
            )
            return Classification(("less", "more"), scores, model=f"{self.name}-model")

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        """The call's number."""
        with self._taken(call, context) as taken:
            await self._work(taken)
            return taken.number

    async def _work(self, taken: Call) -> None:
        fault, _ = self._fate(taken, 0)
        await self._loaded(taken)
        if fault is not None and fault.manner is not Manner.CUT:
            await self._suffer(fault, taken, 0.0)
        await self._pause(taken, self.plan.first_after * self._random.uniform(0.8, 1.3))

    @contextmanager
    def _taken(self, content: Content, context: CallContext) -> Iterator[Call]:
        partial = ""
        if isinstance(content, GenerateInput) and content.messages[-1].role is Role.ASSISTANT:
            partial = content.messages[-1].text
            if not self.plan.continues:
                self.broken.append("was asked to continue a text, which it cannot")
        now = asyncio.get_running_loop().time()
        number = len(self.calls)
        taken = Call(number, self.name, context.request_id, content, partial, now, self.era)
        taken.slow_to_stop = self.plan.slow_to_stop if isinstance(content, GenerateInput) else 0.0
        self.calls.append(taken)
        with self._run(taken):
            yield taken

    @contextmanager
    def _again(self, taken: Call) -> Iterator[None]:
        """A call that goes on after its connection was lost."""
        if taken.number in self._running:
            self.broken.append("was asked to go on with a stream that goes on")
        taken.finished, taken.doom = False, None
        taken.again_in.append(self.era)
        with self._run(taken):
            yield

    @contextmanager
    def _run(self, taken: Call) -> Iterator[None]:
        number = taken.number
        self._running[number] = taken
        alike = self._alike(taken)
        if len(alike) > self.plan.max_concurrency:
            # Those whose callers have just gone are about to notice; the backend's own limit covers that moment.
            self._count_later(alike)
        try:
            yield
        finally:
            del self._running[number]
            taken.ended = asyncio.get_running_loop().time()

    def _alike(self, taken: Call) -> set[int]:
        """What runs in the same lane: counting has its own."""
        counts = isinstance(taken.content, CountTokensInput)
        running = self._running.items()
        return {number for number, call in running if isinstance(call.content, CountTokensInput) == counts}

    def _count_later(self, at_once: set[int]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + _TO_NOTICE + self.plan.slow_to_stop
        loop.call_at(due, self._count, at_once, due)

    def _count(self, at_once: set[int], due: float) -> None:
        if asyncio.get_running_loop().time() > due + _TO_NOTICE:  # the process was stopped meanwhile
            self._count_later(at_once)
        elif len(at_once & self._running.keys()) > self.plan.max_concurrency:
            self.broken.append("got more calls at once than it takes")

    def _answer(self, taken: Call, call: GenerateInput) -> list[str]:
        count = 0 if self._random.random() < 0.02 else min(call.max_output_tokens, 40)
        words = [f"{SAID}:{self.name}:{taken.number}.{at} " for at in range(count)]
        if call.stop and count > 2:
            half = len(STOP) // 2
            words[1] += STOP[:half]
            words[2] = STOP[half:] + words[2]
        return words

    def _fate(self, taken: Call, words: int) -> tuple[Fault | None, int]:
        if len(_text(taken.content)) / 4 > self.plan.context_tokens:
            return Fault("too long", Manner.RAISED, FailureKind.CONTEXT_LENGTH), 0
        if self._lasting is not None:
            return self._lasting, 0
        if (fault := self._episode()) is not None:
            return fault, 0
        if self._random.random() >= self.plan.fault_share:
            return None, 0
        fault = self._random.choice(self.plan.faults)
        if fault.lasting:
            self._lasting = fault
        within = self._random.randint(0, words)
        return fault, 0 if fault.early else within if self.plan.breaks_late else self._random.choice([0, 0, within])

    def _episode(self) -> Fault | None:
        now = asyncio.get_running_loop().time()
        return next((each.fault for each in self.plan.episodes if each.start <= now < each.end), None)

    async def _suffer(self, fault: Fault, taken: Call, every: float) -> float:
        """Have the fault strike; returns the time per word from here on."""
        match fault.manner:
            case Manner.SILENT:
                await self._pause(taken, math.inf)
            case Manner.SLOW_DRIP:
                await self._pause(taken, fault.pause)
                return fault.pause
            case Manner.DELAYED:
                await self._pause(taken, fault.pause)
            case Manner.CRASHED:
                self._crash(fault)
                await self._pause(taken, math.inf)
            case Manner.FOREIGN:
                raise LookupError(_text(taken.content))
            case Manner.RAISED:
                await self._pause(taken, 0.01)
                taken.finished = True
                try:
                    raise ValueError(_text(taken.content))
                except ValueError as error:
                    raise _failure(fault) from error
            case Manner.CUT:
                pass
        return every

    def _crash(self, fault: Fault) -> None:
        self._loaded_at = asyncio.get_running_loop().time() + fault.pause
        self._break_all(fault)

    def _strike(self, episode: Episode) -> None:
        if episode.fault.manner is Manner.RAISED:
            self._break_all(episode.fault)

    def _break_all(self, fault: Fault) -> None:
        for taken in self._running.values():
            if taken.wait is not None and not taken.wait.done():
                taken.wait.set_exception(_failure(fault))
            else:  # its reader is slow: it notices when it is asked for more
                taken.doom = _failure(fault)

    async def _loaded(self, taken: Call) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._loaded_at:
            await self._pause(taken, self._loaded_at - now)

    async def _pause(self, taken: Call, seconds: float) -> None:
        """Wait; a crash or a lost link ends the wait with its failure."""
        if taken.doom is not None:
            raise taken.doom
        loop = asyncio.get_running_loop()
        wait = taken.wait = loop.create_future()
        timer = None if seconds == math.inf else loop.call_later(seconds, _end, wait)
        try:
            await wait
        finally:
            if timer is not None:
                timer.cancel()


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


def _failure(fault: Fault) -> AttemptError:
    return AttemptError(fault.kind, f"simulated: {fault.name}", retry_after=fault.retry_after)


def _text(content: Content) -> str:
    if isinstance(content, GenerateInput | CountTokensInput):
        return "".join(message.text for message in content.messages)
    return content.model if isinstance(content, InferInput) else "".join(content.texts)
