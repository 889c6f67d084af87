"""Carries out plans for a streamed answer: the first token wins, and a broken stream is continued elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ...core.answer import Answer, Chunk, Delta, Finish, FinishReason, GenerateEvent, Seam, TokenLogprob, Usage
from ...core.deadline import Deadline
from ...core.errors import EdgewiseError, PartialAnswer
from ...core.failure import AttemptError, FailureKind
from ...policies.plan import Step, StreamFailover
from .attempt import Attempt
from .conduct import Run
from .feed import Feed
from .outcome import failed, out_of_time, refused
from .race import Race, RaceFailed
from .stop_sequences import StopSequences

STALL_FACTOR = 20.0
"""A pause of so many times the backend's p95 time per token is a stall, within the next two bounds."""
SHORTEST_STALL = 0.5
LONGEST_STALL = 10.0


LEAST_STALL = 0.05
LEAST_STALL_FACTOR = 5.0
"""The same where the last safe moment of whoever could continue has come: then a short silence is enough."""

CLOSE_WAIT = 0.02
"""Seconds for which a failed or left stream waits for its backend to stop; after that it stops on its own."""


@dataclass(frozen=True, slots=True)
class _Silence:
    """How long a stream may be silent: ``limit`` seconds, but not past ``last_safe``, and never under ``least``."""

    limit: float
    least: float
    last_safe: float

    def due(self, now: float) -> float:
        """When a silence that begins now is too long."""
        return min(now + self.limit, max(self.last_safe, now + self.least))


@dataclass(slots=True)
class _Open:
    """A stream that has brought its first event, which still waits to be read."""

    attempt: Attempt
    feed: Feed
    first: GenerateEvent | None
    closed: bool = False

    def finish(self, finish: Finish) -> None:
        """The answer is whole."""
        self.closed = True
        self.attempt.usage = finish.usage
        self.attempt.settle(None)
        self.attempt.close(self.feed.close)

    async def fail(self, error: BaseException) -> AttemptError | None:
        """The stream broke or was left; returns the failure as the request should see it. Idempotent."""
        if self.closed:
            return None
        self.closed = True
        failure = self.attempt.settle(error)
        await asyncio.wait([self.attempt.close(self.feed.close)], timeout=CLOSE_WAIT)
        return failure


class Stream:
    """One streamed answer being carried out."""

    def __init__(self, run: Run, stop: tuple[str, ...], max_output_tokens: int) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._stop = StopSequences(stop)
        self._max_output_tokens = max_output_tokens
        self._raw: list[str] = []
        self._shown: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._tokens = 0
        self._deadline = run.deadline.at

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer's chunks; the last one carries the whole answer. Raises the errors of `router.stream`."""
        run = self._run
        if not run.plan.steps:
            raise refused(run.plan, run.decision)
        opened = await self._open_first()
        seam: Seam | None = None
        try:
            while True:
                opened.attempt.withdrawn = opened.feed.fail
                silence = self._longest_silence(opened.attempt)
                # The hot loop. Per token: one wait, one chunk, a few attributes.
                while isinstance(event := await self._next(opened, silence), Delta):
                    text = self._take(event)
                    if text or event.logprobs:
                        given = self._now()
                        yield Chunk(text, seam, event.logprobs)
                        # A slow reader's time is not the stream's.
                        self._deadline += self._now() - given
                        seam = None
                    if self._stop.reached:
                        event = Finish(FinishReason.STOP, Usage(output_tokens=opened.attempt.tokens))
                        break
                if isinstance(event, Finish):
                    opened.finish(event)
                    break
                failure = await opened.fail(event)
                assert failure is not None
                if self._tokens >= self._max_output_tokens:
                    # Nothing was left to say but that.
                    event = Finish(FinishReason.LENGTH, Usage(output_tokens=opened.attempt.tokens))
                    break
                # The attempt had the request's own deadline, whatever the reader's time adds to it here.
                late = failure.kind is FailureKind.TIMED_OUT and run.deadline.passed(self._now())
                if late or self._now() >= self._deadline:
                    raise out_of_time(run.decision, self._partial())
                broken = opened.attempt
                opened = await self._continue(broken, failure)
                seam = self._seam(broken, opened.attempt, failure)
        except (asyncio.CancelledError, GeneratorExit) as left:
            await opened.fail(left)
            raise
        yield self._last_chunk(opened.attempt, event, seam)

    async def _next(self, opened: _Open, silence: _Silence | None) -> GenerateEvent | Exception:
        """The stream's next event, or what it failed with."""
        first, opened.first = opened.first, None
        if first is not None:
            return first
        due = self._deadline if silence is None else min(self._deadline, silence.due(self._now()))
        event = await opened.feed.next(due)
        return self._stalled(opened.attempt) if event is None else event

    async def _open_first(self) -> _Open:
        run = self._run
        deadline = min(run.first_token_deadline, run.deadline)
        try:
            return await Race(run, run.plan.steps, self._open, deadline, discard=_discard).result()
        except RaceFailed as lost:
            if lost.timed_out and deadline < run.deadline:
                raise out_of_time(run.decision, first_token=True) from None
            raise failed(lost, run.decision) from None

    async def _continue(self, broken: Attempt, failure: AttemptError) -> _Open:
        """A stream that continues the text so far, by a step that has not failed and can."""
        run = self._run
        if not self._raw:
            # Nothing was shown: failing over is free, and any step that is left may answer.
            steps = self._not_failed()
        elif failure.disposition.next_backend and run.plan.stream_failover is not StreamFailover.NONE:
            steps = [step for step in self._not_failed() if self._can_continue(step)]
        else:
            steps = []
        lost: RaceFailed | None = None
        if steps and run.request.labels.idempotent:
            race = Race(run, steps, self._open, Deadline(self._deadline), discard=_discard, may_repeat=False)
            try:
                return await race.result()
            except RaceFailed as ended:
                lost = ended
        raise self._broken(broken, failure, lost)

    def _broken(self, broken: Attempt, failure: AttemptError, lost: RaceFailed | None) -> EdgewiseError:
        decision = self._run.decision
        if lost is not None and lost.timed_out:
            return out_of_time(decision, self._partial())
        if not self._raw:
            failures = (failure, *(lost.failures if lost else ()))
            return failed(RaceFailed(failures, timed_out=False), decision)
        reasons = "; ".join(dict.fromkeys(error.sentence for error in (lost.failures if lost else ())))
        tried = f"no other backend could continue it ({reasons})" if reasons else "no other backend may continue it"
        sentence = f"the stream of {broken.step.backend!r} broke: {failure.sentence}; {tried}"
        return PartialAnswer(sentence, decision, self._partial())

    async def _open(self, attempt: Attempt) -> _Open:
        return await attempt.call(lambda: self._first_event(attempt))

    async def _first_event(self, attempt: Attempt) -> _Open:
        feed = Feed(attempt, attempt.generate("".join(self._raw), self._max_output_tokens - self._tokens))
        try:
            first = await feed.next(math.inf)
        except BaseException:
            attempt.close(feed.close)
            raise
        if isinstance(first, Delta | Finish):
            return _Open(attempt, feed, first)
        attempt.close(feed.close)
        raise first or attempt.truncated()

    def _take(self, delta: Delta) -> str:
        self._tokens += delta.tokens
        self._raw.append(delta.text)
        if delta.logprobs:
            self._logprobs += delta.logprobs
        text = self._stop.push(delta.text)
        self._shown.append(text)
        return text

    def _last_chunk(self, attempt: Attempt, finish: Finish, seam: Seam | None) -> Chunk:
        held = "" if self._stop.reached else self._stop.flush()
        self._shown.append(held)
        self._run.answered(attempt.step.backend, self._now())
        answer = Answer(
            text="".join(self._shown),
            backend=attempt.step.backend,
            finish_reason=finish.reason,
            usage=finish.usage,
            decision=self._run.decision,
            model=finish.model,
            logprobs=tuple(self._logprobs),
            data_classes=self._run.plan.data_classes,
            cost=attempt.record.cost,
        )
        return Chunk(held, seam, answer=answer)

    def _seam(self, broken: Attempt, now: Attempt, failure: AttemptError) -> Seam | None:
        if not self._raw:
            return None
        seam = Seam(broken.step.backend, now.step.backend, f"{broken.step.backend} failed: {failure.kind}")
        self._run.decision.seams.append(seam)
        return seam

    def _longest_silence(self, attempt: Attempt) -> _Silence | None:
        """After how long a silence the stream counts as stalled; ``None`` where nobody could continue it anyway."""
        others = [step for step in self._not_failed() if step.backend != attempt.step.backend]
        able = [step for step in others if self._can_continue(step)]
        if not able:
            return None
        usual = attempt.member.estimators[self._run.request.labels.task].output_token_p95()
        last_safe = self._deadline - able[0].prediction.total.quantile_95()
        return _Silence(
            limit=min(max(SHORTEST_STALL, STALL_FACTOR * usual), LONGEST_STALL),
            least=max(LEAST_STALL, LEAST_STALL_FACTOR * usual),
            last_safe=last_safe,
        )

    def _stalled(self, attempt: Attempt) -> AttemptError:
        if self._now() >= self._deadline:
            return AttemptError(FailureKind.TIMED_OUT, f"backend {attempt.step.backend!r} did not finish in time")
        return AttemptError(FailureKind.STALLED, f"backend {attempt.step.backend!r} fell silent within its answer")

    def _not_failed(self) -> list[Step]:
        # One that was only beaten by another to the first token has not failed.
        spared = (None, FailureKind.PREEMPTED)
        failed = {attempt.backend for attempt in self._run.decision.attempts if attempt.failure not in spared}
        return [step for step in self._run.plan.steps if step.backend not in failed]

    def _can_continue(self, step: Step) -> bool:
        labels = self._run.request.labels
        terms = self._run.conduct.fleet[step.backend].terms
        return terms.continues and labels.idempotent and not labels.constrained and not labels.logprobs

    def _partial(self) -> str:
        return "".join(self._shown)

    def _now(self) -> float:
        return self._loop.time()


async def _discard(opened: _Open) -> None:
    await opened.fail(asyncio.CancelledError())
