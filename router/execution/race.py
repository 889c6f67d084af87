"""The plan's steps against the clock.

The next step starts when one fails or falls silent within its answer, and beside one whose first token should have come
(a hedge, paid from the retry budget); the last resort starts at its last safe moment, beside whatever still runs, and
no budget refuses it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from ...core.deadline import Deadline
from ...core.errors import RouterClosed
from ...core.failure import AttemptError, FailureKind
from ...policies.plan import Step
from .attempt import Attempt
from .conduct import Run
from .retry import may_retry, retry
from .silence import Silence, stalled
from .slots import Slots

T = TypeVar("T")

StartAttempt = Callable[[Attempt], Coroutine[Any, Any, T]]
"""Carries out one attempt: returns its result, or raises `AttemptError`."""

SHORTEST_HEDGE_DELAY = 0.01
"""Seconds before which no attempt is hedged, however fast its backend was: a hiccup is not a fault."""


LONGEST_PAUSE_BESIDE_RESERVE = 0.25
"""Seconds of pushback up to which a retry is worth its wait while the last resort has not started."""


class RaceFailed(Exception):
    """No step came through. ``timed_out``: a deadline passed first; else ``failures`` are all there were.

    ``unbegun``: it was the one by which a first token had to come.
    """

    def __init__(self, failures: Sequence[AttemptError], *, timed_out: bool, unbegun: bool = False) -> None:
        super().__init__()
        self.failures = tuple(failures)
        self.timed_out = timed_out
        self.unbegun = unbegun


class Race(Generic[T]):
    """One race over some steps. ``start`` carries out an attempt; ``discard`` undoes a success that came too late.

    ``begin_by`` is when one of them must have brought its first token, where that is sooner than the ``deadline``.
    """

    def __init__(
        self,
        run: Run,
        steps: Sequence[Step],
        start: StartAttempt[T],
        deadline: Deadline,
        *,
        begin_by: Deadline | None = None,
        discard: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        may_repeat: bool = True,
    ) -> None:
        self._run = run
        self._start = start
        self._discard = discard
        self._deadline = deadline
        self._begin_by = math.inf if begin_by is None else begin_by.at
        self._may_repeat = may_repeat and run.request.labels.idempotent
        self._loop = asyncio.get_running_loop()
        self._waiting = [step for step in steps if step.starts_at is None]
        self._reserve = next((step for step in steps if step.starts_at is not None), None)
        if self._reserve is not None:
            # Twenty requests must not all count on one free engine: each is seen by those that plan after it.
            self._slots_of(self._reserve).promised += 1
        self._running: dict[asyncio.Task[T], Attempt] = {}
        self._withdrawn: dict[Attempt, AttemptError] = {}
        self._repeated: set[str] = set()
        self._hedge_due = math.inf
        self._first: Attempt | None = None
        self._failures: list[AttemptError] = []
        self._news: asyncio.Future[None] | None = None

    async def result(self) -> T:
        """The first result. Raises `RaceFailed`, and `RouterClosed` where the router's end is what it failed by."""
        try:
            self._start_next("first choice")
            while self._running:
                await self._news_or_due()
                self._drop_withdrawn()
                for task in [task for task in self._running if task.done()]:
                    attempt = self._running.pop(task)
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, AttemptError):
                        raise error
                    self._failed(attempt.step, error, sent=_content_was_sent(error))
                now = self._loop.time()
                if self._deadline.passed(now):
                    raise RaceFailed(self._failures, timed_out=True)
                self._require_a_beginning(now)
                self._withdraw_the_silent(now)
                self._hedge_when_due(now)
                self._start_reserve_when_due(now)
            raise RaceFailed(self._failures, timed_out=False)
        finally:
            self._end_the_others()

    async def _news_or_due(self) -> None:
        """Wait until an attempt has ended or something is due. What `asyncio.wait` does, at half its cost a request."""
        if self._withdrawn or any(task.done() for task in self._running):
            return
        self._news = self._loop.create_future()
        due = min(self._deadline.at, self._begin_by, self._hedge_due, self._reserve_due(), self._silence_due())
        timer = self._loop.call_at(due, self._tell, None)
        try:
            await self._news
        finally:
            timer.cancel()
            self._news = None

    def _tell(self, ended: object) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _withdraw(self, attempt: Attempt, error: AttemptError) -> None:
        attempt.newest.settle(error)
        self._withdrawn[attempt] = error
        self._tell(None)

    def _drop_withdrawn(self) -> None:
        """Go on at once from what newer walls forbid or is lost, however slow its backend is to stop."""
        withdrawn, self._withdrawn = self._withdrawn, {}
        for task, attempt in list(self._running.items()):
            if (error := withdrawn.get(attempt)) is not None:
                del self._running[task]
                self._end(task, attempt)
                self._failed(attempt.step, error, sent=attempt.sent)

    def _require_a_beginning(self, now: float) -> None:
        if now >= self._begin_by:
            self._begin_by = math.inf
            if not any(attempt.has_begun for attempt in self._running.values()):
                raise RaceFailed(self._failures, timed_out=True, unbegun=True)

    def _silence_due(self) -> float:
        """When to look whether an attempt has fallen silent within its answer."""
        if not self._somebody_is_left:
            return math.inf
        now = self._loop.time()
        return min(self._silence(attempt).due(attempt.last_token_at or now) for attempt in self._running.values())

    def _withdraw_the_silent(self, now: float) -> None:
        if not self._somebody_is_left:
            return
        for attempt in self._running.values():
            if attempt.has_begun and now >= self._silence(attempt).due(attempt.last_token_at):
                self._withdraw(attempt, stalled(attempt))

    @property
    def _somebody_is_left(self) -> bool:
        """Whether a step is left to answer in the place of one that is silent."""
        return self._next_step() is not None and self._run.request.labels.idempotent

    def _silence(self, attempt: Attempt) -> Silence:
        """How long it may be silent, by the newest that is known: others teach it while this one waits."""
        # The last resort starts at its last safe moment by itself, and beside the silent one.
        return Silence.of(attempt, math.inf)

    def _next_step(self) -> Step | None:
        return self._waiting[0] if self._waiting else self._reserve

    def _reserve_due(self) -> float:
        if self._reserve is None or self._reserve.starts_at is None:
            return math.inf
        return self._run.request.started_at + self._reserve.starts_at

    def _start_reserve_when_due(self, now: float) -> None:
        if self._reserve is not None and now >= self._reserve_due():
            step = self._reserve
            self._give_up_reserve()
            self._launch(step, "last resort, at its last safe moment")

    def _hedge_when_due(self, now: float) -> None:
        """Start another step beside the first one, which should have begun to answer by now. Once a request."""
        if now < self._hedge_due:
            return
        self._hedge_due = math.inf
        assert self._first is not None
        if self._first.has_begun or len(self._running) != 1:
            return
        step = self._next_step()
        if step is None or step.avoided or not self._run.conduct.fleet[step.backend].retry_budget.pay_for_hedge():
            return
        self._take(step)
        self._launch(step, f"hedge, {self._first.step.backend} is silent for longer than it should be")

    def _start_next(self, reason: str) -> None:
        step = self._next_step()
        if step is None:
            return
        self._take(step)
        attempt = self._launch(step, reason)
        self._run.conduct.fleet[step.backend].retry_budget.earn()
        if self._first is None and self._run.plan.hedge and self._run.request.labels.idempotent:
            self._first = attempt
            delay = max(SHORTEST_HEDGE_DELAY, step.prediction.first.quantile_95())
            self._hedge_due = self._loop.time() + delay

    def _take(self, step: Step) -> None:
        if step is self._reserve:
            self._give_up_reserve()
        else:
            self._waiting.remove(step)

    def _give_up_reserve(self) -> None:
        """It is in reserve no more: it starts now, or never."""
        if self._reserve is not None:
            self._slots_of(self._reserve).promised -= 1
            self._reserve = None

    def _slots_of(self, step: Step) -> Slots:
        return self._run.conduct.fleet[step.backend].lane(self._run.request.labels.task).slots

    def _launch(self, step: Step, reason: str) -> Attempt:
        attempt = self._attempt(step, reason)
        self._watch(self._loop.create_task(self._start(attempt)), attempt)
        return attempt

    def _attempt(self, step: Step, reason: str) -> Attempt:
        attempt = Attempt(self._run, step, reason)
        attempt.withdrawn = partial(self._withdraw, attempt)
        return attempt

    def _watch(self, task: asyncio.Task[T], attempt: Attempt) -> None:
        self._running[task] = attempt
        task.add_done_callback(self._tell)

    def _failed(self, step: Step, error: AttemptError, *, sent: bool) -> None:
        if self._run.conduct.fleet.closed:
            raise closed_meanwhile() from None
        self._failures.append(error)
        if step.backend not in self._repeated:
            self._run.conduct.fleet[step.backend].retry_budget.lose()
        if not error.disposition.next_backend:
            raise RaceFailed([error], timed_out=False)
        if not self._run.request.labels.idempotent and sent:
            raise RaceFailed(self._failures, timed_out=False)
        if error.kind is FailureKind.CONTEXT_LENGTH:
            self._drop_smaller_contexts(step)
        if self._waiting:
            self._start_next(f"{step.backend} failed: {error.kind}")
        elif self._may_retry(step, error):
            self._repeated.add(step.backend)
            self._watch(self._loop.create_task(self._repeat(step, error)), self._attempt(step, "retry"))
        elif not self._running:
            self._start_next(f"{step.backend} failed: {error.kind}")

    def _may_retry(self, step: Step, error: AttemptError) -> bool:
        if not self._may_repeat or not may_retry(error) or step.backend in self._repeated:
            return False
        # Nobody waits out a long pushback beside a last resort that could answer meanwhile.
        return self._reserve is None or (error.retry_after or 0.0) <= LONGEST_PAUSE_BESIDE_RESERVE

    async def _repeat(self, step: Step, error: AttemptError) -> T:
        task = asyncio.current_task()
        assert task is not None

        async def again() -> T:
            self._running[task] = attempt = self._attempt(step, "retry")
            return await self._start(attempt)

        return await retry(
            again,
            error,
            self._run.plan.retry,
            self._run.conduct.fleet[step.backend].retry_budget,
            self._deadline,
            self._run.conduct.random,
        )

    def _drop_smaller_contexts(self, failed: Step) -> None:
        takes_more = self._run.conduct.fleet.takes_more
        self._waiting = [step for step in self._waiting if takes_more(step.backend, failed.backend)]
        if self._reserve is not None and not takes_more(self._reserve.backend, failed.backend):
            self._give_up_reserve()

    def _end_the_others(self) -> None:
        self._give_up_reserve()
        for task, attempt in self._running.items():
            self._end(task, attempt)

    def _end(self, task: asyncio.Task[T], attempt: Attempt) -> None:
        """Stop an attempt, or undo its success: the race goes on or ends without it."""
        # Judged now, so that the decision is complete when it is handed out.
        attempt.newest.settle(asyncio.CancelledError())
        if not task.done():
            self._run.conduct.fleet.let_end(task)
        elif not task.cancelled() and task.exception() is None and self._discard is not None:
            self._run.conduct.fleet.keep(self._loop.create_task(self._discard(task.result())))


def closed_meanwhile() -> RouterClosed:
    """How a call ends that was under way when its router was closed."""
    return RouterClosed("this router was closed while the call ran")


def _content_was_sent(error: AttemptError) -> bool:
    return error.kind not in (FailureKind.NOT_PERMITTED, FailureKind.PREEMPTED)
