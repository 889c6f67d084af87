"""Carries out plans for a streamed answer: the first token wins, and a broken stream is continued elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from ...core.answer import Answer, Chunk, Delta, Finish, FinishReason, GenerateEvent, Usage
from ...core.deadline import Deadline
from ...core.decision import Seam
from ...core.errors import EdgewiseError, PartialAnswer
from ...core.failure import AttemptError, FailureKind
from ...policies.plan import Step
from .attempt import Attempt
from .conduct import Run
from .feed import Feed
from .outcome import failed, out_of_time, refused
from .race import Race, RaceFailed, StartAttempt, closed_meanwhile
from .resumption import UnderWay, resume
from .retry import backoff, may_retry
from .silence import Silence, stalled
from .text import Text

CLOSE_WAIT = 0.02
"""Seconds for which a failed or left stream waits for its backend to stop; after that it stops on its own."""


@dataclass(frozen=True, slots=True)
class Failover:
    """What may happen when a stream breaks after its first text; `PartialAnswer` where nothing may."""

    continues: bool
    """Another backend may continue the text."""
    restarts: bool = False
    """Where none does, the answer may begin anew: the caller can take back what it showed."""


@dataclass(slots=True)
class _Open:
    """A stream that has brought its first event, which still waits to be read."""

    attempt: Attempt
    feed: Feed
    first: GenerateEvent | None

    def cut(self, finish: Finish) -> None:
        """The answer is whole, though its backend would say more."""
        self.attempt.usage = finish.usage
        self.feed.end(None)

    async def fail(self, error: BaseException) -> None:
        """The stream broke or was left. The first end stands."""
        await asyncio.wait([self.feed.end(error)], timeout=CLOSE_WAIT)


class Stream:
    """One streamed answer being carried out. ``failover`` is what may happen when it breaks after its first text."""

    def __init__(self, run: Run, stop: tuple[str, ...], max_output_tokens: int, failover: Failover) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._max_output_tokens = max_output_tokens
        self._failover = failover
        self._text = Text(stop)
        self._seen: Text | None = None
        """What the reader has begun to get; not `_text` where that was begun anew and shows nothing yet."""
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
                    text = self._text.take(event)
                    if text or event.logprobs:
                        given = self._now()
                        self._seen = self._text
                        yield Chunk(text, seam, event.logprobs)
                        # A slow reader's time is not the stream's.
                        self._deadline += self._now() - given
                        seam = None
                    if self._text.stopped:
                        event = Finish(FinishReason.STOP, Usage(output_tokens=opened.attempt.tokens))
                        opened.cut(event)
                        break
                if isinstance(event, Finish):
                    break
                await opened.fail(failure := event)
                if self._text.tokens >= self._max_output_tokens:
                    # Nothing was left to say but that.
                    event = Finish(FinishReason.LENGTH, Usage(output_tokens=opened.attempt.tokens))
                    break
                # The attempt had the deadline as it was then, whatever the reader's time has added to it since.
                late = failure.kind is FailureKind.TIMED_OUT and opened.attempt.run.deadline.passed(self._now())
                if late or self._now() >= self._deadline:
                    raise out_of_time(run.decision, self._partial)
                resumed = await self._resumed(opened.attempt, failure)
                if resumed is not None:
                    opened = resumed
                    continue
                opened, seam = await self._take_over(opened.attempt, failure)
        except (asyncio.CancelledError, GeneratorExit) as left:
            await opened.fail(left)
            raise
        yield self._last_chunk(opened.attempt, event, seam)

    async def _next(self, opened: _Open, silence: Silence | None) -> GenerateEvent | AttemptError:
        """The stream's next event, or what it failed with."""
        first, opened.first = opened.first, None
        if first is not None:
            return first
        event = await opened.feed.next(math.inf if silence is None else silence.due(self._now()))
        return stalled(opened.attempt) if event is None else event

    async def _open_first(self) -> _Open:
        run = self._run
        deadline = min(run.first_token_deadline, run.deadline)
        try:
            return await Race(run, run.plan.steps, self._open, deadline, discard=_discard).result()
        except RaceFailed as lost:
            if lost.timed_out and deadline < run.deadline:
                raise out_of_time(run.decision, first_token=True) from None
            raise failed(lost, run.decision) from None

    async def _resumed(self, broken: Attempt, failure: AttemptError) -> _Open | None:
        """The same stream from where it broke; ``None`` where that fails, or takes longer than others can wait."""
        until = Deadline(self._last_safe(broken.step.backend))
        return await resume(self._prolonged(), broken, failure, self._open_resumed, until)

    async def _take_over(self, broken: Attempt, failure: AttemptError) -> tuple[_Open, Seam | None]:
        """The stream that goes on after one broke, and the seam to it: continued, or else begun anew.

        Where nothing was shown yet it begins anew without a seam.
        """
        if self._run.conduct.fleet.closed:
            raise closed_meanwhile()
        lost: RaceFailed | None = None
        if failure.disposition.next_backend and self._run.request.labels.idempotent:
            try:
                if self._seen is not None and (opened := await self._continued()) is not None:
                    restarts = self._seen is not self._text
                    return opened, self._seam(broken, opened.attempt, failure, restarts=restarts)
            except RaceFailed as ended:
                lost = ended
            too_late = lost is not None and lost.timed_out
            try:
                if not too_late and (opened := await self._begun_anew(broken, failure)) is not None:
                    return opened, self._seam(broken, opened.attempt, failure, restarts=True)
            except RaceFailed as ended:
                lost = ended
        raise self._broken(broken, failure, lost)

    async def _continued(self) -> _Open | None:
        """A stream that continues the text so far, by a step that has not failed and can; ``None`` without one."""
        steps = [step for step in self._not_failed() if self._can_continue(step)]
        return await self._race(steps, self._open) if steps else None

    async def _begun_anew(self, broken: Attempt, failure: AttemptError) -> _Open | None:
        """A stream of the answer from its beginning; ``None`` where nobody may, or is left to, give one.

        Until there is one the text so far stays the answer's.
        """
        if self._seen is not None and not self._failover.restarts:
            return None
        steps, text = self._not_failed(), Text(self._stop)
        if not steps and await self._may_ask_again(broken, failure):
            steps = [broken.step]
        if not steps:
            return None
        opened = await self._race(steps, lambda attempt: self._open(attempt, text))
        self._text = text
        return opened

    async def _may_ask_again(self, broken: Attempt, failure: AttemptError) -> bool:
        """Whether the backend that broke the stream may be asked once more, after a pause. Nobody else is left."""
        if not may_retry(failure):
            return False
        pause = backoff(1, failure, self._run.plan.retry, self._run.conduct.random)
        if pause >= self._deadline - self._now() or not broken.member.retry_budget.pay_for_retry():
            return False
        await asyncio.sleep(pause)
        return True

    async def _race(self, steps: Sequence[Step], start: StartAttempt[_Open]) -> _Open:
        run = self._prolonged()
        return await Race(run, steps, start, run.deadline, discard=_discard, may_repeat=False).result()

    def _prolonged(self) -> Run:
        """The request with the time that its reader has taken, for whoever goes on from here."""
        return replace(self._run, read_for=self._deadline - self._run.deadline.at)

    def _broken(self, broken: Attempt, failure: AttemptError, lost: RaceFailed | None) -> EdgewiseError:
        decision = self._run.decision
        if lost is not None and lost.timed_out:
            return out_of_time(decision, self._partial)
        if self._seen is None:
            failures = (failure, *(lost.failures if lost else ()))
            return failed(RaceFailed(failures, timed_out=False), decision)
        reasons = "; ".join(dict.fromkeys(error.sentence for error in (lost.failures if lost else ())))
        tried = f"no other backend could continue it ({reasons})" if reasons else "no other backend may continue it"
        sentence = f"the stream of {broken.step.backend!r} broke: {failure.sentence}; {tried}"
        return PartialAnswer(sentence, decision, self._partial)

    async def _open(self, attempt: Attempt, text: Text | None = None) -> _Open:
        """Open a stream that goes on with ``text``, the answer's so far where it is absent."""
        so_far = text or self._text
        left = self._max_output_tokens - so_far.tokens
        return await attempt.call(
            lambda: self._first_event(attempt, Feed(attempt, attempt.generate(so_far.sent, left)))
        )

    async def _open_resumed(self, attempt: Attempt, under_way: UnderWay) -> _Open:
        async def first_event() -> _Open:
            feed = Feed(attempt, attempt.resume())
            attempt.withdrawn = feed.fail
            return await self._first_event(attempt, feed)

        return await attempt.call(first_event)

    async def _first_event(self, attempt: Attempt, feed: Feed) -> _Open:
        try:
            first = await feed.next(math.inf)
        except BaseException as left:
            feed.end(left)
            raise
        if isinstance(first, Delta | Finish):
            feed.keep_deadline()
            return _Open(attempt, feed, first)
        raise first or attempt.truncated()

    def _last_chunk(self, attempt: Attempt, finish: Finish, seam: Seam | None) -> Chunk:
        held = self._text.end()
        self._run.answered(attempt.step.backend, self._now())
        answer = Answer(
            text=self._text.shown,
            backend=attempt.step.backend,
            finish_reason=finish.reason,
            usage=finish.usage,
            decision=self._run.decision,
            model=finish.model,
            logprobs=tuple(self._text.logprobs),
            data_classes=self._run.plan.data_classes,
            cost=attempt.cost,
        )
        return Chunk(held, seam, answer=answer)

    @property
    def _partial(self) -> str:
        return "" if self._seen is None else self._seen.shown

    def _seam(self, broken: Attempt, now: Attempt, failure: AttemptError, *, restarts: bool) -> Seam | None:
        if self._seen is None:
            return None
        sentence = f"{broken.step.backend} failed: {failure.kind}"
        seam = Seam(broken.step.backend, now.step.backend, sentence, restarts)
        self._run.decision.seams.append(seam)
        return seam

    def _longest_silence(self, attempt: Attempt) -> Silence | None:
        """After how long a silence the stream counts as stalled; ``None`` where nobody could continue it anyway."""
        if self._successor(attempt.step.backend) is None:
            return None
        return Silence.of(attempt, self._last_safe(attempt.step.backend))

    def _successor(self, backend: str) -> Step | None:
        """Who would take this backend's stream over."""
        others = [step for step in self._not_failed() if step.backend != backend]
        return next((step for step in others if self._can_take_over(step)), None)

    def _last_safe(self, backend: str) -> float:
        """The last safe moment of whoever would; the deadline where nobody would."""
        able = self._successor(backend)
        return self._deadline if able is None else self._deadline - able.prediction.total.quantile_95()

    def _not_failed(self) -> list[Step]:
        """The steps that are left: neither failed nor, where the request was too long for one, no longer than that."""
        # One that was only beaten by another to the first token has not failed.
        spared = (None, FailureKind.PREEMPTED)
        attempts, takes_more = self._run.decision.attempts, self._run.conduct.fleet.takes_more
        failed = {attempt.backend for attempt in attempts if attempt.failure not in spared}
        short = {attempt.backend for attempt in attempts if attempt.failure is FailureKind.CONTEXT_LENGTH}
        left = [step for step in self._run.plan.steps if step.backend not in failed]
        return [step for step in left if all(takes_more(step.backend, than) for than in short)] if short else left

    def _can_continue(self, step: Step) -> bool:
        labels = self._run.request.labels
        able = self._run.conduct.fleet[step.backend].terms.continues
        return (
            able and self._failover.continues and labels.idempotent and not labels.constrained and not labels.logprobs
        )

    def _can_take_over(self, step: Step) -> bool:
        return self._can_continue(step) or (self._failover.restarts and self._run.request.labels.idempotent)

    def _now(self) -> float:
        return self._loop.time()


async def _discard(opened: _Open) -> None:
    await opened.fail(asyncio.CancelledError())
