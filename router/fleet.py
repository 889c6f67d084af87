"""The configured backends with all that changes about them: health, load, and what they taught us."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..backends import Backend, HealthState
from ..core.decision import RefusalCode
from ..core.failure import AttemptError, FailureKind
from ..core.request import Labels, Task
from ..policies.facts import BackendFacts, BackendTerms, LogNormal, NotReady
from .estimates import Estimator, Prior, Trial
from .execution.breaker import Breaker
from .execution.lane import Lane
from .execution.quarantine import QuarantineWard
from .execution.retry_budget import RetryBudget
from .execution.slots import Slots
from .execution.tally import Tally
from .link import Reach
from .snapshot import JsonValue, Unreadable, table, text
from .stats import (
    TYPICAL_OUTPUT_TOKENS,
    TYPICAL_PROMPT_TOKENS,
    AttemptCounts,
    BackendStats,
    BreakerStats,
    Quantiles,
    QueueStats,
    RetryTokens,
    TaskStats,
)

log = logging.getLogger("edgewise")

STOP_SECONDS = 5.0
"""So long a backend may take to stop before it is left behind."""


class Member:
    """One backend at work: its terms, its breaker, its slots, and an estimator for each kind of work.

    ``identity`` differs where a backend of the same name is another one, whose times say nothing of this one's.
    ``reach`` is what is known of the way there; a backend on this device has none.
    """

    def __init__(
        self,
        backend: Backend,
        terms: BackendTerms,
        priors: Mapping[Task, Prior],
        clock: Callable[[], float],
        random_source: random.Random,
        identity: str,
        reach: Reach | None = None,
    ) -> None:
        self.backend = backend
        self.identity = identity
        self.terms = terms
        self.name = terms.name
        self.breaker = Breaker(clock, random_source)
        self.retry_budget = RetryBudget(clock)
        self._quarantine = QuarantineWard(backend.is_mended)
        self.estimators = {task: Estimator(priors[task], clock) for task in terms.tasks}
        self.slots = Slots(backend.capabilities.max_concurrency)
        self.tally = Tally()
        counting = Lane(Breaker(clock, random_source), Slots(backend.capabilities.max_concurrency))
        self._lanes = dict.fromkeys(Task, Lane(self.breaker, self.slots)) | {Task.COUNT_TOKENS: counting}
        self._some_estimator = next(iter(self.estimators.values()))
        self.reach = reach
        if reach is not None:
            reach.returned += (self.breaker.try_now, counting.breaker.try_now)

    def lane(self, task: Task) -> Lane:
        """The breaker and the places for this kind of work."""
        return self._lanes[task]

    def facts(self, labels: Labels) -> BackendFacts:
        """What a plan may know of this backend now."""
        health = self.backend.health()
        reach = self.reach
        lane = self._lanes[labels.task]
        not_ready = self._quarantine.refusal(labels.task) or (reach and reach.refusal) or lane.breaker.refusal()
        if not_ready is None and health.state is HealthState.DOWN:
            not_ready = NotReady(RefusalCode.UNREACHABLE, health.sentence)
        # A backend that cannot do the task is refused for that; its prediction is then of no matter.
        estimator = self.estimators.get(labels.task, self._some_estimator)
        prediction = estimator.predict(labels, lane.slots.ahead(labels.priority), health.state is HealthState.LOADING)
        return BackendFacts(self.name, prediction, not_ready, reach is not None and reach.judged_alone)

    def trial(self, labels: Labels) -> Trial:
        """A call begins here, and will show how long it takes."""
        return self.estimators[labels.task].trial(labels, self.backend.health().state is HealthState.LOADING)

    def report(self, error: AttemptError, task: Task | None, attempt: object) -> None:
        """Take note of a failed attempt, or of a failed start (no task); a quarantine is said loudly."""
        breaker = self.breaker if task is None else self._lanes[task].breaker
        if error.kind is FailureKind.TIMED_OUT and self.backend.health().state is HealthState.LOADING:
            # A model that takes long to load is no failure; whoever asks later finds it loaded.
            breaker.abandoned(attempt)
        else:
            breaker.failed(attempt, error)
        if self._quarantine.note(error, task):
            use = "out of use" if task is None else f"out of use for {task}"
            log.error("backend %r is %s until it is mended: %s", self.name, use, error.sentence)

    def stats(self) -> BackendStats:
        """What is known of it now, for people and their dashboards."""
        health, tally = self.backend.health(), self.tally
        slots, breaker, budget = self.slots, self.breaker, self.retry_budget
        return BackendStats(
            health=health.state,
            health_sentence=health.sentence,
            progress=health.progress,
            tasks={task: self._task_stats(task, health.state) for task in self.estimators},
            queue=QueueStats(slots.capacity, slots.running, slots.waiting, slots.promised),
            breaker=BreakerStats(
                breaker.state, breaker.failures_in_a_row, breaker.failure_share, breaker.remaining_pause()
            ),
            quarantine=self._quarantine.reasons(self.estimators),
            retry_tokens=RetryTokens(budget.for_retries, budget.for_hedges),
            attempts=AttemptCounts(
                started=tally.started,
                succeeded=tally.succeeded,
                stopped=tally.stopped,
                failed=dict(tally.failed),
                prompt_tokens=tally.prompt_tokens,
                output_tokens=tally.output_tokens,
                cost=None if self.terms.price is None else tally.cost,
            ),
        )

    def _task_stats(self, task: Task, state: HealthState) -> TaskStats:
        estimator = self.estimators[task]
        typical = Labels(task, prompt_tokens=TYPICAL_PROMPT_TOKENS, max_output_tokens=TYPICAL_OUTPUT_TOKENS)
        prediction = estimator.predict(typical, 0.0, state is HealthState.LOADING)
        per_token = estimator.output_token()
        return TaskStats(
            first_token=_quantiles(prediction.first),
            output_token=None if per_token is None else _quantiles(per_token),
            total=_quantiles(prediction.total),
            observations=estimator.observations,
            known=prediction.known,
        )

    def snapshot(self) -> JsonValue:
        """Its breaker and its estimates."""
        return {
            "identity": self.identity,
            "breaker": self.breaker.snapshot(),
            "estimates": {task.value: estimator.snapshot() for task, estimator in self.estimators.items()},
        }

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back, unless it is of another backend. Raises `Unreadable`."""
        stored = table(value)
        if text(stored, "identity") != self.identity:
            return
        self.breaker.restore(table(stored, "breaker"), shift)
        estimates = table(stored, "estimates")
        for task, estimator in self.estimators.items():
            estimator.restore(table(estimates, task.value), shift)


def _quantiles(predicted: LogNormal) -> Quantiles:
    return Quantiles(predicted.median(), predicted.quantile_95())


class Fleet:
    """All members, in the order of the configuration. Owns their starting and stopping."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = {member.name: member for member in members}
        self._starting: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[Any]] = set()
        self.closed = False
        """Whether its router was closed: what its backends fail by now is that."""

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def takes_more(self, backend: str, than: str) -> bool:
        """Whether a request that is too long for one backend may fit into the other; so where either is not known."""
        own, other = self[backend].terms.context_tokens, self[than].terms.context_tokens
        return own is None or other is None or own > other

    def take_terms(self, newer: Iterable[BackendTerms]) -> None:
        """Go by what a newer configuration says of the same backends."""
        for terms in newer:
            self._members[terms.name].terms = terms

    def start(self) -> None:
        """Begin to make every backend ready, in the background: a request meanwhile goes to one that is."""
        self._starting = [asyncio.create_task(self._start(member)) for member in self]

    def start_again(self) -> None:
        """Start what is down on this device, in the background: what it failed by may have been mended by now."""
        down = [each for each in self if each.reach is None and each.backend.health().state is HealthState.DOWN]
        for member in down:
            member.breaker.try_now()
        self._starting = [task for task in self._starting if not task.done()]
        self._starting += [asyncio.create_task(self._start(member)) for member in down]

    async def started(self) -> None:
        """Wait until every backend is ready or has failed to be."""
        await asyncio.gather(*self._starting)

    async def _start(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            await member.backend.start()
        except AttemptError as error:
            member.report(error, None, member)
            log.warning("backend %r did not start: %s", member.name, error.sentence)
        else:
            for estimator in member.estimators.values():
                estimator.observe_load(loop.time() - begun)

    def snapshot(self) -> JsonValue:
        """Every backend's, by name."""
        return {member.name: member.snapshot() for member in self}

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back, for the backends that are still there. Raises `Unreadable`."""
        stored = table(value)
        unreadable = None
        for member in self:
            if member.name in stored:
                try:
                    member.restore(stored[member.name], shift)
                except Unreadable as error:
                    unreadable = error
        if unreadable is not None:
            raise unreadable

    def let_end(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task and keep it until it has ended, without waiting for it here."""
        task.cancel()
        self.keep(task)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task that cleans up until it has ended; `stop` waits for it."""
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # read, so that the loop does not report what the attempt's record already has

    async def stop(self) -> None:
        """Stop every backend and wait until nothing of theirs runs; not for ever, where one does not stop."""
        self.closed = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        results = await asyncio.gather(
            *(asyncio.wait_for(member.backend.stop(), STOP_SECONDS) for member in self), return_exceptions=True
        )
        for member, result in zip(self, results, strict=True):
            if isinstance(result, Exception):
                log.warning("backend %r did not stop cleanly: %s", member.name, type(result).__name__)
        if self._ending:
            await asyncio.wait(self._ending, timeout=STOP_SECONDS)
