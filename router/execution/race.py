"""The plan's steps against the clock: the next one when one fails, the last resort at its last safe moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...policies.plan import Step
from .conduct import Run
from .retry import may_retry, retry

T = TypeVar("T")

StartStep = Callable[[Step, str], Coroutine[Any, Any, T]]
"""Makes one attempt at a step, for a reason in words: returns its result, or raises `AttemptError`."""


class RaceFailed(Exception):
    """No step came through. ``timed_out``: the deadline passed first; else ``failures`` are all there were."""

    def __init__(self, failures: Sequence[AttemptError], *, timed_out: bool) -> None:
        super().__init__()
        self.failures = tuple(failures)
        self.timed_out = timed_out


class Race(Generic[T]):
    """One race over some steps. ``start`` makes an attempt; ``discard`` undoes a success that came too late."""

    def __init__(
        self,
        run: Run,
        steps: Sequence[Step],
        start: StartStep[T],
        deadline: Deadline,
        *,
        discard: Callable[[T], Coroutine[Any, Any, None]] | None = None,
        may_repeat: bool = True,
    ) -> None:
        self._run = run
        self._start = start
        self._discard = discard
        self._deadline = deadline
        self._may_repeat = may_repeat and run.request.labels.idempotent
        self._loop = asyncio.get_running_loop()
        self._waiting = [step for step in steps if step.starts_at is None]
        self._reserve = next((step for step in steps if step.starts_at is not None), None)
        self._running: dict[asyncio.Task[T], Step] = {}
        self._repeated: set[str] = set()
        self._failures: list[AttemptError] = []

    async def result(self) -> T:
        """The first result. Raises `RaceFailed`."""
        try:
            self._start_next("first choice")
            while self._running:
                await asyncio.wait(self._running, timeout=self._until_next_event(), return_when=asyncio.FIRST_COMPLETED)
                finished = [task for task in self._running if task.done()]
                for task in finished:
                    step = self._running.pop(task)
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, AttemptError):
                        raise error
                    self._failed(step, error)
                if self._deadline.passed(self._loop.time()):
                    raise RaceFailed(self._failures, timed_out=True)
                self._start_reserve_when_due()
            raise RaceFailed(self._failures, timed_out=False)
        finally:
            self._end_the_others()

    def _until_next_event(self) -> float:
        now = self._loop.time()
        until = self._deadline.remaining(now)
        if self._reserve is not None:
            until = min(until, max(0.0, self._reserve_due() - now))
        return until

    def _reserve_due(self) -> float:
        assert self._reserve is not None
        assert self._reserve.starts_at is not None
        return self._run.request.started_at + self._reserve.starts_at

    def _start_reserve_when_due(self) -> None:
        if self._reserve is not None and self._loop.time() >= self._reserve_due():
            step, self._reserve = self._reserve, None
            self._launch(step, self._start(step, "last resort, at its last safe moment"))

    def _start_next(self, reason: str) -> None:
        if self._waiting:
            step = self._waiting.pop(0)
        elif self._reserve is not None:
            step, self._reserve = self._reserve, None
        else:
            return
        self._launch(step, self._start(step, reason))

    def _launch(self, step: Step, work: Coroutine[Any, Any, T]) -> None:
        self._running[self._loop.create_task(work)] = step

    def _failed(self, step: Step, error: AttemptError) -> None:
        self._failures.append(error)
        if not error.disposition.next_backend:
            raise RaceFailed([error], timed_out=False)
        if not self._run.request.labels.idempotent and _content_was_sent(error):
            raise RaceFailed(self._failures, timed_out=False)
        if error.kind is FailureKind.CONTEXT_LENGTH:
            self._drop_smaller_contexts(step)
        if self._waiting:
            self._start_next(f"{step.backend} failed: {error.kind}")
        elif self._may_repeat and may_retry(error) and step.backend not in self._repeated:
            self._repeated.add(step.backend)
            self._launch(step, self._repeat(step, error))
        elif not self._running:
            self._start_next(f"{step.backend} failed: {error.kind}")

    async def _repeat(self, step: Step, error: AttemptError) -> T:
        return await retry(
            lambda: self._start(step, "retry"),
            error,
            self._run.plan.retry,
            self._deadline,
            self._run.conduct.random,
        )

    def _drop_smaller_contexts(self, failed: Step) -> None:
        fleet = self._run.conduct.fleet
        limit = fleet[failed.backend].terms.context_tokens
        if limit is None:
            return

        def is_larger(step: Step) -> bool:
            context = fleet[step.backend].terms.context_tokens
            return context is None or context > limit

        self._waiting = [step for step in self._waiting if is_larger(step)]
        if self._reserve is not None and not is_larger(self._reserve):
            self._reserve = None

    def _end_the_others(self) -> None:
        for task in self._running:
            if not task.done():
                self._run.conduct.fleet.let_end(task)
            elif not task.cancelled() and task.exception() is None and self._discard is not None:
                self._run.conduct.fleet.keep(self._loop.create_task(self._discard(task.result())))


def _content_was_sent(error: AttemptError) -> bool:
    return error.kind not in (FailureKind.NOT_PERMITTED, FailureKind.PREEMPTED)
