"""One call to one backend: its admission, its slot, its record, and what it teaches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from ...backends import Backend, CallContext
from ...core.answer import GenerateEvent, Usage
from ...core.deadline import Deadline
from ...core.decision import AttemptRecord
from ...core.duration import format_duration
from ...core.failure import AttemptError, FailureKind
from ...core.permit import Permit
from ...core.request import Request, Task
from ...policies.plan import Step
from ..estimates import Trial
from .conduct import Run
from .slots import Turn

T = TypeVar("T")

_STOPPED = frozenset({FailureKind.TIMED_OUT, FailureKind.STALLED})
"""Failures by our own patience: they say how long it takes at least, where others say nothing of the time."""


def _unheard(error: AttemptError) -> None:
    """Nobody waits for the attempt yet."""


class Attempt:
    """One call to one backend.

    `call` once; when it came through, `settle` and `close` once, however it went on; between them `token` as they come.
    A call may wait for a slot first; the backend's own time counts from there. Settling judges, records and learns at
    once; closing stops the work and frees the slot, and nobody has to wait for a backend that is slow to stop.

    One that ``resumes`` another goes on with that one's stream, for whoever waits for it. What comes of it shows the
    backend to be there, and teaches nothing of its pace.
    """

    def __init__(self, run: Run, step: Step, reason: str, *, resumes: Attempt | None = None) -> None:
        self.run = run
        self.step = step
        self.member = run.conduct.fleet[step.backend]
        self._lane = self.member.lane(run.request.labels.task)
        self._loop = asyncio.get_running_loop()
        self.record = AttemptRecord(step.backend, reason, 0.0)
        self._number = 0
        self.sent = False
        """Whether content may have left for the backend."""
        self.withdrawn: Callable[[AttemptError], None] = _unheard if resumes is None else resumes.withdrawn
        """Told where the attempt must end while it runs: newer walls forbid it, or nothing can come from there.

        Set by whoever waits for it.
        """
        self._settled = False
        self._counted = False
        self._has_slot = False
        self._called_at = 0.0
        self._trial: Trial | None = None
        self._first_at: float | None = None
        self._last_at = 0.0
        self._tokens = 0
        self.usage: Usage | None = None
        """What the backend counted, once it has answered."""
        self._resumed = resumes
        self._resumption: Attempt | None = None
        if resumes is not None:
            resumes._resumption = self
        self._stream: str = "" if resumes is None else resumes._stream
        self._received: int = 0 if resumes is None else resumes._received
        self._reach = self.member.reach

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Pass the breaker, wait for a slot, do ``work``.

        Where that fails the attempt is settled and closed, and raises `AttemptError`.
        """
        self.record.started = self._since_entry()
        self.run.decision.attempts.append(self.record)
        self._number = len(self.run.decision.attempts)
        self.run.conduct.under_way.add(self)
        try:
            await self._enter()
            return await work()
        except BaseException as raised:  # noqa: BLE001  # judged below, outside of the handler
            error = raised
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
            error = self.cancelled_itself()
        # Raised outside of the handler, so that a library's exception, whose text may hold content, is not its context.
        failure = self.settle(error)
        self.free()
        raise failure or error

    async def _enter(self) -> None:
        connectivity = self.run.conduct.connectivity
        objection = connectivity.objection(self._reach)
        if objection is not None:
            raise AttemptError(FailureKind.PREEMPTED, f"not tried: {objection}")
        refusal = self._lane.breaker.admit(self)
        if refusal is not None:
            raise AttemptError(FailureKind.PREEMPTED, f"not tried: {refusal.sentence}")
        self._counted = True
        self.member.tally.started += 1
        self._refuse_what_cannot_start_in_time()
        await self._lane.slots.take(Turn(self.run.request.labels.priority))
        self._has_slot = self.sent = True
        self._called_at = self._loop.time()
        if self._resumed is None:
            self._trial = self.member.trial(self.run.request.labels)
        if self._reach is not None:
            connectivity.begun(self._reach, self)

    def _refuse_what_cannot_start_in_time(self) -> None:
        """Say at once what waiting in the queue would only show later. A guess refuses nobody."""
        slots, labels = self._lane.slots, self.run.request.labels
        answers_ahead = (slots.before(labels.priority) - slots.capacity + 1) / slots.capacity
        if answers_ahead <= 0:
            return
        prediction = self.member.estimators[labels.task].predict(labels, 0.0, loading=False)
        if not prediction.known:
            return
        now = self._loop.time()
        wait = answers_ahead * prediction.total.median()
        done = wait + prediction.total.median() <= self.run.deadline.remaining(now)
        begun = wait + prediction.first.median() <= self.run.first_token_deadline.remaining(now)
        if not (done and begun):
            sentence = f"about {format_duration(wait)} of work waits at {self.step.backend!r}, too much for the budget"
            # Asking here again within the budget would only be told the same.
            raise AttemptError(FailureKind.OVERLOADED, sentence, retry_after=math.inf)

    def sending(self) -> tuple[Permit, Backend, Request, CallContext]:
        """What `Dispatch` wants to see before it opens the content, and what it sends along."""
        return self.step.permit, self.member.backend, self.run.request, self._context()

    def generate(self, partial: str, tokens_left: int) -> AsyncGenerator[GenerateEvent, None]:
        """The backend's stream, which continues ``partial`` if there is any."""
        return self.run.conduct.dispatch.generate(*self.sending(), partial=partial, tokens_left=tokens_left)

    @property
    def can_resume(self) -> bool:
        """Whether its stream, once lost, can go on where it stopped."""
        return bool(self._stream and self._received)

    def resume(self) -> AsyncGenerator[GenerateEvent, None]:
        """What follows in the stream of the attempt that this one resumes."""
        return self.run.conduct.dispatch.resume(*self.sending(), after=self._received)

    @property
    def newest(self) -> Attempt:
        """The attempt that goes on with its stream now: itself, unless it was resumed."""
        return self if self._resumption is None else self._resumption.newest

    @property
    def tokens(self) -> int:
        """How many tokens have come in its stream, to those that it resumes too."""
        return self._tokens if self._resumed is None else self._resumed.tokens + self._tokens

    @property
    def has_begun(self) -> bool:
        """Whether a first token has come."""
        return self._first_at is not None

    @property
    def last_token_at(self) -> float:
        """When the last token came, or its stream was taken up again, on the loop's clock; 0 before the first."""
        resumption = self._resumption
        if resumption is None:
            return self._last_at
        return max(self._last_at, resumption._called_at, resumption.last_token_at)

    def token(self, count: int, now: float) -> None:
        """So many tokens came now, in one delta."""
        reach = self._reach
        if self._first_at is None:
            self._first_at = now
            if reach is not None:
                self.run.conduct.connectivity.answered(reach)
            self.record.first_token = now - self.run.request.started_at
            if self._trial is not None:
                self._trial.first(now - self._called_at)
        elif reach is not None:
            reach.heard_at = now
        self._received += 1
        self._tokens += count
        self._last_at = now

    def truncated(self) -> AttemptError:
        """The failure of a stream that ended without a `Finish`."""
        return AttemptError(FailureKind.TRUNCATED, f"backend {self.step.backend!r} ended without a finish reason")

    def cancelled_itself(self) -> AttemptError:
        """The failure of a backend that raised a cancellation which nobody had asked for."""
        sentence = f"backend {self.step.backend!r} cancelled itself, where only AttemptError is allowed"
        return AttemptError(FailureKind.INTERNAL, sentence)

    def settle(self, error: BaseException | None) -> AttemptError | None:
        """Judge the attempt; returns the failure as the request should see it, ``None`` for success and cancellation.

        The first verdict stands. An attempt that has not begun leaves no trace.
        """
        if self._settled or not self._number:
            return None
        self._settled = True
        self.run.conduct.under_way.discard(self)
        failure = self._judge(error)
        if self._reach is not None:
            self._reach.end(self)
            if failure is not None:
                self.run.conduct.connectivity.failed(self._reach, failure)
        self.record.ended = self._since_entry()
        self._account(failure)
        if error is None:
            self._succeeded()
        elif failure is None:
            self._abandoned()
        else:
            self.record.failure = failure.kind
            self.record.sentence = failure.sentence
            if failure.kind in _STOPPED:
                self._learn_from_stopping()
            if self._counted:
                self.member.report(failure, self.run.request.labels.task, self)
        if self._counted:
            self.member.tally.count(self.record)
        return failure

    def close(self, stop: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Stop the work by ``stop``, then free the slot. The task is kept until it has ended."""

        async def close() -> None:
            try:
                await stop()
            finally:
                self.free()

        closing = self._loop.create_task(close())
        self.run.conduct.fleet.keep(closing)
        return closing

    def free(self) -> None:
        """Free the slot. Idempotent."""
        if self._has_slot:
            self._has_slot = False
            self._lane.slots.give_back()

    def _judge(self, error: BaseException | None) -> AttemptError | None:
        if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit):
            return None
        if isinstance(error, AttemptError):
            # What a library raised beneath it may quote content.
            error.__cause__ = error.__context__ = None
            return error
        if not isinstance(error, Exception):
            raise error
        # Another exception breaks the backend's contract. Its text may hold content, so only its type is told.
        sentence = f"backend {self.member.name!r} raised {type(error).__name__}, where only AttemptError is allowed"
        return AttemptError(FailureKind.INTERNAL, sentence)

    def _account(self, failure: AttemptError | None) -> None:
        """Write down the tokens, and what they cost."""
        record, price = self.record, self.member.terms.price
        if self._took_the_prompt(failure):
            counted, before = self.usage or Usage(), self._charged_before
            # A service that does not count, or was stopped before it did, has read the prompt all the same.
            prompt = counted.prompt_tokens or self.run.request.labels.prompt_tokens
            output = counted.output_tokens or before.output_tokens + self._tokens
            # Of a resumed stream the service counts all; what it was charged for already is the other attempts'.
            record.prompt_tokens = max(0, prompt - before.prompt_tokens)
            record.output_tokens = max(0, output - before.output_tokens)
        if price is not None:
            record.cost = price.of(record.prompt_tokens, record.output_tokens)
            self.run.conduct.spending.add(record.cost)

    @property
    def _charged_before(self) -> Usage:
        if self._resumed is None:
            return Usage()
        before, record = self._resumed._charged_before, self._resumed.record
        return Usage(before.prompt_tokens + record.prompt_tokens, before.output_tokens + record.output_tokens)

    @property
    def cost(self) -> float | None:
        """What its stream cost, those that it resumes included, in US dollars; ``None`` without a price."""
        own, before = self.record.cost, None if self._resumed is None else self._resumed.cost
        return own if own is None or before is None else own + before

    def _took_the_prompt(self, failure: AttemptError | None) -> bool:
        if not self._has_slot or self.run.request.labels.task is Task.COUNT_TOKENS:  # nobody is charged for counting
            return False
        return self._first_at is not None or failure is None or failure.kind is FailureKind.TIMED_OUT

    def _succeeded(self) -> None:
        self._lane.breaker.succeeded(self)
        if self._reach is not None:
            self.run.conduct.connectivity.answered(self._reach)
        if self._trial is not None and self._first_at is not None and self._tokens:
            self._trial.whole(self._tokens, self._first_at - self._called_at, self._last_at - self._called_at)

    def _abandoned(self) -> None:
        self.record.failure = FailureKind.PREEMPTED
        self.record.sentence = "stopped, because another attempt answered or the request ended"
        if not self._has_slot:
            self._lane.breaker.abandoned(self)
            return
        self._learn_from_stopping()
        if self._first_at is not None:
            # It was at work: whoever leaves a stream early says nothing against its backend.
            self._lane.breaker.succeeded(self)
            return
        if self._resumed is not None:
            self._lane.breaker.abandoned(self)
            return
        silent = self._loop.time() - self._called_at
        if silent <= self.step.prediction.first.quantile_95():
            self._lane.breaker.abandoned(self)
            return
        # Silence for longer than this backend ever takes is a failure, whoever answered in the end.
        late = AttemptError(FailureKind.TIMED_OUT, "stopped after a silence longer than it ever takes")
        self.record.failure, self.record.sentence = late.kind, late.sentence
        self.member.report(late, self.run.request.labels.task, self)

    def _learn_from_stopping(self) -> None:
        """What was stopped before its end took at least so long."""
        if self._trial is None:
            return
        stopped = self._loop.time() - self._called_at
        if self._first_at is None:
            self._trial.no_first(stopped)
        elif self._tokens:
            first, last = self._first_at - self._called_at, self._last_at - self._called_at
            self._trial.cut(self._tokens, first, last, stopped)

    def _context(self) -> CallContext:
        request = self.run.request
        if not self._stream and self.member.backend.capabilities.resumes:
            self._stream = f"{self.run.conduct.random.getrandbits(128):032x}"
        now = self._loop.time()
        first_by = None if self.run.plan.first_token_budget is None else self.run.first_token_deadline
        prediction = self.step.prediction
        return CallContext(
            request_id=request.id,
            deadline=self.run.deadline,
            data_classes=self.run.plan.data_classes,
            priority=request.labels.priority,
            idempotency_key=request.idempotency_key,
            attempt=self._number,
            stream=self._stream,
            # What would start later would likely end too late.
            start_by=Deadline(self.run.deadline.at - prediction.total.median()) if prediction.known else None,
            # In a continuation the first token came long ago.
            first_by=None if first_by is None or first_by.passed(now) else first_by,
        )

    def _since_entry(self) -> float:
        return self._loop.time() - self.run.request.started_at
