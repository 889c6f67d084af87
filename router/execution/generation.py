"""Carries out plans for a whole generated answer: the first complete one wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from ...core.answer import Answer, Delta, Finish, FinishReason, GenerateEvent, TokenLogprob, Usage
from ...core.deadline import Deadline
from ...core.failure import AttemptError
from .attempt import Attempt
from .conduct import Run
from .outcome import failed, refused
from .race import Race, RaceFailed
from .resumption import UnderWay, resume
from .stop_sequences import StopSequences

RESUME_PATIENCE = 1.0
"""Seconds for which the next backend waits while a stream that was lost is taken up again."""


class _Draft:
    """What one attempt has brought so far."""

    def __init__(self, attempt: Attempt, stop: tuple[str, ...]) -> None:
        self.attempt = attempt
        self.pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.tokens = 0
        self.finish: Finish | None = None
        self._stop = StopSequences(stop)

    def add(self, delta: Delta) -> None:
        """Take a delta; a stop sequence ends the answer."""
        self.pieces.append(self._stop.push(delta.text))
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        if self._stop.reached:
            self.finish = Finish(FinishReason.STOP, Usage(output_tokens=self.tokens))

    def end(self, finish: Finish) -> None:
        """The backend has ended the answer."""
        self.pieces.append(self._stop.flush())
        self.finish = finish

    @property
    def text(self) -> str:
        return "".join(self.pieces)


async def run_generate(run: Run, stop: tuple[str, ...], max_output_tokens: int) -> Answer:
    """Generate a whole answer. Raises the errors of `router.generate`."""
    if not run.plan.steps:
        raise refused(run.plan, run.decision)
    drafts: list[_Draft] = []
    loop = asyncio.get_running_loop()

    async def start(attempt: Attempt) -> _Draft:
        draft = _Draft(attempt, stop)
        drafts.append(draft)
        try:
            return await carry(draft, attempt, lambda: attempt.generate("", max_output_tokens))
        except AttemptError as error:
            failure = error
        until = run.deadline if len(run.plan.steps) == 1 else min(run.deadline, Deadline(loop.time() + RESUME_PATIENCE))

        def go_on(again: Attempt, under_way: UnderWay) -> Awaitable[_Draft]:
            return carry(draft, again, again.resume, under_way)

        resumed = await resume(run, attempt, failure, go_on, until)
        if resumed is None:
            raise failure
        return resumed

    async def carry(
        draft: _Draft,
        attempt: Attempt,
        events: Callable[[], AsyncGenerator[GenerateEvent, None]],
        under_way: UnderWay | None = None,
    ) -> _Draft:
        draft.attempt = attempt
        await attempt.call(lambda: _consume(draft, attempt, events(), under_way))
        attempt.settle(None)
        return draft

    try:
        winner = await Race(run, run.plan.steps, start, run.deadline, begin_by=run.begin_by).result()
    except RaceFailed as lost:
        partial = max((draft.text for draft in drafts), key=len, default="") if lost.timed_out else ""
        raise failed(lost, run.decision, partial) from None
    finish = winner.finish
    assert finish is not None
    run.answered(winner.attempt.step.backend, loop.time())
    return Answer(
        text=winner.text,
        backend=winner.attempt.step.backend,
        finish_reason=finish.reason,
        usage=finish.usage,
        decision=run.decision,
        model=finish.model,
        logprobs=tuple(winner.logprobs),
        data_classes=run.plan.data_classes,
        cost=winner.attempt.cost,
    )


async def _consume(
    draft: _Draft, attempt: Attempt, events: AsyncGenerator[GenerateEvent, None], under_way: UnderWay | None
) -> None:
    loop = asyncio.get_running_loop()
    async for event in events:
        if under_way is not None:
            under_way()
        if isinstance(event, Finish):
            draft.end(event)
        else:
            attempt.token(event.tokens, loop.time())
            draft.add(event)
        if draft.finish is not None:
            attempt.usage = draft.finish.usage
            attempt.close(events.aclose)
            return
    raise attempt.truncated()
