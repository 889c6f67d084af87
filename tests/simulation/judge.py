"""Holds what happened in a world against what the documentation promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from edgewise.core.content import CountTokensInput, GenerateInput, InferInput
from edgewise.core.failure import FailureKind
from edgewise.core.request import Task
from edgewise.router import AsyncRouter, DeadlineExceeded, PartialAnswer
from edgewise.router.execution.retry_budget import (
    EARNED_PER_FIRST_ATTEMPT,
    HEDGE_SHARE,
    MOST_EARNED,
    MOST_RESERVE,
    RESERVE_SECONDS,
)

from .carrying import Outcome
from .requests import SAID, SECRET, STOP
from .rules import own_bounds, permitted, within_walls
from .simulated import Call, SimulatedBackend
from .world import TASKS, World

LATE = 0.05
"""Seconds after its deadline by which a request has ended."""

STOPPED = 0.1
"""Seconds after a request's end by which all work for it has ended."""

_ENDS = {
    "answered",
    "left",
    "cancelled",
    "NoBackendPermitted",
    "Offline",
    "DeadlineExceeded",
    "Overloaded",
    "BackendError",
    "InvalidRequest",
    "PartialAnswer",
}
_TINY = 1e-6

_AMPLE = 20.0
"""A latency budget, in seconds, that leaves time for a sound backend after anything."""


class Judge:
    """Collects the broken promises of one world. ``pauses`` are the instants between which nothing ran."""

    def __init__(self, world: World, backends: Mapping[str, SimulatedBackend]) -> None:
        self.violations: list[str] = []
        self.pauses: list[tuple[float, float]] = []
        self._eras = [(0.0, world)]
        self._backends = backends
        self._calls: dict[int, list[Call]] | None = None

    def reloaded(self, now: float, world: World) -> None:
        """From now on the world is configured like this."""
        self._eras.append((now, world))
        for backend in self._backends.values():
            backend.era += 1

    @property
    def newest(self) -> World:
        """The world as it is configured now."""
        return self._eras[-1][1]

    @property
    def era(self) -> int:
        """How many reloads there were."""
        return len(self._eras) - 1

    def request(self, outcome: Outcome) -> None:
        """Judge one request, when all is over."""
        calls = self._calls_of(outcome)
        for said in (
            *self._content(outcome, calls),
            *self._time(outcome, calls),
            *self._end(outcome, calls),
            *self._answered(outcome),
            *self._text(outcome, calls),
            *self._secrecy(outcome),
        ):
            self.violations.append(f"request {outcome.ask.number} ({outcome.ask.task}, {outcome.end}): {said}")

    def world(self, logged: list[str], complaints: list[str]) -> None:
        """Judge what belongs to no single request."""
        self.violations += [f"the loop complains: {each}" for each in complaints]
        self.violations += ["a log line holds content" for line in logged if SECRET in line or SAID in line]
        for name, backend in self._backends.items():
            self.violations += [f"{name} {each}" for each in sorted(set(backend.broken))]

    def nothing_is_left(self, router: AsyncRouter) -> None:
        """Judge what is left of all requests after they ended."""
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        self.violations += [f"a task is left: {task.get_coro()}" for task in tasks]
        conduct = router._conduct
        assert conduct is not None
        if conduct.under_way:
            self.violations.append(f"{len(conduct.under_way)} attempts count as under way")
        for member in conduct.fleet:
            backend = self._backends[member.name]
            tally = member.tally
            if tally.started != tally.succeeded + tally.stopped + tally.failed.total():
                self.violations.append(f"{member.name} began {tally.started} attempts, of which others ended")
            if any(member.lane(task).breaker._probe for task in (Task.GENERATE, Task.COUNT_TOKENS)):
                self.violations.append(f"{member.name} waits for a probe that has ended")
            if backend.running:
                self.violations.append(f"{member.name} still runs {backend.running} calls")
            for slots in (member.lane(task).slots for task in (Task.GENERATE, Task.COUNT_TOKENS)):
                if slots.running or slots.waiting or slots.promised:
                    counts = f"{slots.running} running, {slots.waiting} waiting, {slots.promised} promised"
                    self.violations.append(f"{member.name} counts calls that have ended: {counts}")

    def budgets(self, router: AsyncRouter, outcomes: Sequence[Outcome]) -> None:
        """Judge what was paid beyond first attempts against what they earned; nothing else makes a token."""
        conduct = router._conduct
        assert conduct is not None
        now = asyncio.get_running_loop().time()
        tried = [each for outcome in outcomes if outcome.decision for each in outcome.decision.attempts]
        for member in conduct.fleet:
            # Attempts of callers who went away are in no decision that was handed out: they only earned.
            reasons = [each.reason for each in tried if each.backend == member.name]
            retries = sum(reason in ("retry", "resume") for reason in reasons)
            hedges = sum(reason.startswith("hedge") for reason in reasons)
            earned = EARNED_PER_FIRST_ATTEMPT * len(outcomes)
            reserve = MOST_RESERVE + now / RESERVE_SECONDS
            if retries + hedges > earned + reserve or hedges > HEDGE_SHARE * earned + reserve:
                self.violations.append(f"{member.name} got {retries} retries and {hedges} hedges, more than was earned")
            budget = member.retry_budget
            if not 0.0 <= budget.for_hedges <= budget.for_retries <= MOST_EARNED + MOST_RESERVE:
                self.violations.append(f"{member.name} has {budget.for_hedges} and {budget.for_retries} tokens")

    def _content(self, outcome: Outcome, calls: list[Call]) -> Iterator[str]:
        """Promise 1: where content went."""
        planned = self._eras[outcome.era][1]
        for name in {call.backend for call in calls}:
            if not permitted(planned, name, outcome.ask, outcome.bounds, outcome.link):
                yield f"content went to {name}, which is not permitted"
        for call in calls:
            for era in (call.era, *call.again_in):
                if not self._walls_permit(era, outcome, call.backend):
                    yield f"content went to {call.backend}, which the walls in force then forbid"
            for era in range([call.era, *call.again_in][-1] + 1, len(self._eras)):
                reloaded = self._eras[era][0]
                last = self._by(reloaded, STOPPED + call.slow_to_stop)
                on = call.ended is not None and call.ended > last + _TINY
                if on and not self._walls_permit(era, outcome, call.backend):
                    yield f"{call.backend} worked on where newer walls forbid it"
        if not outcome.ask.idempotent and len(calls) > 1:
            yield f"sent {len(calls)} times, and must not be repeated"

    def _walls_permit(self, era: int, outcome: Outcome, backend: str) -> bool:
        """Whether the walls of this version do: by its default class, where a request's content has none of its own."""
        world, bounds = self._eras[era][1], outcome.bounds
        if outcome.ask.conversation is None:
            bounds = own_bounds(world, outcome.ask)
        return within_walls(world, backend, bounds)

    def _time(self, outcome: Outcome, calls: list[Call]) -> Iterator[str]:
        """Promise 2: when it ended, and when the work for it did."""
        decision = outcome.decision
        if outcome.cancelled_at is not None and outcome.ended > self._by(outcome.cancelled_at, STOPPED):
            yield f"went on for {outcome.ended - outcome.cancelled_at:.3f} s after it was cancelled"
        if decision is not None:
            due = outcome.started + decision.latency_budget
            deadline = due + outcome.read_for
            if outcome.ended > max(self._by(deadline, LATE), self._by(due, LATE + outcome.read_for)):
                yield f"ended {outcome.ended - deadline:.3f} s after its deadline"
            first_by = outcome.started + (decision.first_token_budget or decision.latency_budget)
            first = outcome.ended if outcome.first_text is None else outcome.first_text
            if outcome.ask.task == "stream" and not outcome.ask.stop and first > self._by(first_by, LATE):
                yield f"was silent for {first - first_by:.3f} s more than its first-token budget"
            if outcome.end == "DeadlineExceeded" and outcome.ended < min(first_by, due) - _TINY:
                yield "gave up before its deadline"
            given = outcome.ask.latency_budget
            if given is not None and decision.latency_budget != given:
                yield f"had a budget of {decision.latency_budget} instead of the caller's {given}"
        for call in calls:
            last = self._by(outcome.ended, STOPPED + call.slow_to_stop)
            if call.ended is not None and call.ended > last + _TINY:
                yield f"{call.backend} worked on for {call.ended - outcome.ended:.3f} s after it had ended"

    def _end(self, outcome: Outcome, calls: list[Call]) -> Iterator[str]:
        """Exactly one outcome, and a documented one."""
        if outcome.end not in _ENDS:
            yield f"ended by {outcome.error!r:.200}"
            return
        if outcome.end == "cancelled" and outcome.cancelled_at is None:
            yield "was cancelled by nobody"
        if outcome.end == "PartialAnswer" and outcome.ask.task != "stream":
            yield "only streams break with text shown"
        if outcome.end == "Offline" and outcome.link != "offline":
            yield "called the device offline, which it was not"
        if outcome.end in ("NoBackendPermitted", "Offline") and calls:
            yield "called nobody permitted after asking somebody"
        decision = outcome.decision
        if decision is None:
            if outcome.end not in ("left", "cancelled", "InvalidRequest"):
                yield "has no decision"
            return
        if len(decision.attempts) < len(calls):
            yield f"records {len(decision.attempts)} attempts of {len(calls)}"
        if any(attempt.ended is None for attempt in decision.attempts):
            yield "records an attempt without its end"
        answered = outcome.answer is not None or bool(outcome.rows)
        if answered != (decision.answered_by is not None):
            yield f"records that {decision.answered_by} answered"

    def _answered(self, outcome: Outcome) -> Iterator[str]:
        """Promise 3, where there is no doubt: a sound backend on this device may answer, and there is time."""
        ask, decision = outcome.ask, outcome.decision
        if outcome.end in ("answered", "left", "cancelled") or self.pauses or not ask.idempotent:
            return
        if decision is not None and (decision.latency_budget < _AMPLE or decision.first_token_budget is not None):
            return
        final = {FailureKind.CONTENT_FILTER, FailureKind.INVALID_REQUEST}
        if decision is not None and any(attempt.failure in final for attempt in decision.attempts):
            return
        world = self._eras[outcome.era][1]
        if outcome.shown or any(rule.settings for rule in world.rules):
            return
        if not outcome.bounds.classes <= world.classes.keys():
            return
        for backend in self._backends.values():
            plan = backend.plan
            sound = plan.on_device and not plan.fault_share and not plan.episodes and not plan.load
            roomy = plan.max_concurrency >= 64 and plan.context_tokens >= 4000
            able = plan.logprobs and set(plan.tasks) == set(TASKS)
            if sound and roomy and able and permitted(world, plan.name, ask, outcome.bounds, outcome.link):
                yield f"{plan.name} could have answered"

    def _text(self, outcome: Outcome, calls: list[Call]) -> Iterator[str]:
        """The text is what backends said, whole, in order, once; arrays are those of one call."""
        ask = outcome.ask
        if ask.task not in ("generate", "stream"):
            if outcome.end == "answered":
                yield from self._rows(outcome, calls)
            return
        answer = outcome.answer
        partial = outcome.error.partial if isinstance(outcome.error, DeadlineExceeded | PartialAnswer) else None
        if ask.task == "generate":
            if answer is not None and not any(_fits([call], outcome) for call in calls):
                yield "its text is not what the backend said"
            if partial and not any(_shown([call], ask.stop, whole=False).startswith(partial) for call in calls):
                yield "its partial text is not what a backend said"
            return
        if partial is not None and partial != outcome.shown:
            yield f"showed {len(outcome.shown)} characters, and calls {len(partial)} the partial answer"
        if answer is not None and answer.text != outcome.shown:
            yield "showed another text than the answer's"
        if not outcome.shown and answer is None:
            return
        chains = [chain for chain in _chains(calls) if _fits(chain, outcome)]
        if not chains:
            yield "its text is not what the backends said"
        elif outcome.decision is not None and outcome.end != "left":
            restarts = [at for at, seam in enumerate(outcome.decision.seams, 1) if seam.restarts]
            since = restarts[-1] if restarts else 0
            seams = [(seam.from_backend, seam.to_backend) for seam in outcome.decision.seams[since:]]
            if not any([(a.backend, b.backend) for a, b in pairwise(chain)] == seams for chain in chains):
                yield f"records the seams {seams}, which are others"

    def _rows(self, outcome: Outcome, calls: list[Call]) -> Iterator[str]:
        assert outcome.decision is not None
        by = outcome.decision.answered_by
        numbers = [call.number for call in calls if call.backend == by]
        match outcome.ask.task:
            case "infer":
                wanted = [[[outcome.ask.number]]]
            case "classify":
                wanted = [[[number, -number]] for number in numbers]
            case "count_tokens":
                wanted = [[[number]] for number in numbers]
            case _:
                texts = (outcome.ask.content, "a second text")
                wanted = [[[len(text), number] for text in texts] for number in numbers]
        if outcome.rows not in wanted:
            yield "its numbers are not what the backend said"

    def _secrecy(self, outcome: Outcome) -> Iterator[str]:
        texts = []
        error: BaseException | None = outcome.error
        while error is not None:
            texts += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        if any(SECRET in text or SAID in text for text in texts):
            yield "its error's text holds content"
        if outcome.decision is not None:
            record = json.dumps(outcome.decision.to_dict()) + outcome.decision.explain()
            if SECRET in record or SAID in record:
                yield "its decision holds content"
        if outcome.answer is not None and SAID in repr(outcome.answer):
            yield "its answer's repr shows content"

    def _by(self, instant: float, allowed: float) -> float:
        """The end of the time ``allowed`` from an instant on, pauses not counted."""
        return self._awake(self._awake(instant) + allowed)

    def _awake(self, instant: float) -> float:
        """The first instant from this one on at which the process runs."""
        for begin, end in self.pauses:  # in their order; one may begin where another ends
            if begin - _TINY <= instant <= end:
                instant = end
        return instant

    def _calls_of(self, outcome: Outcome) -> list[Call]:
        """The calls that carried this request's content, told by the content itself."""
        if self._calls is None:
            self._calls = {}
            for backend in self._backends.values():
                for call in backend.calls:
                    self._calls.setdefault(_number(call), []).append(call)
        return self._calls.get(outcome.ask.number, [])


def _number(call: Call) -> int:
    content = call.content
    if isinstance(content, GenerateInput | CountTokensInput):
        text = content.messages[0].text
    else:
        text = content.model if isinstance(content, InferInput) else content.texts[0]
    return int(text[len(SECRET) : text.index(":")])


def _shown(chain: list[Call], stop: bool, *, whole: bool) -> str:
    """What a caller sees of what these calls said one after the other.

    Of a text that is not ``whole``, what may be the beginning of a stop sequence is held back.
    """
    text = "".join(word for call in chain for word in call.said)
    if not stop:
        return text
    before, found, _ = text.partition(STOP)
    if found or whole:
        return before
    held = next((n for n in range(len(STOP) - 1, 0, -1) if text.endswith(STOP[:n])), 0)
    return text[: len(text) - held]


def _chains(calls: list[Call]) -> list[list[Call]]:
    """Every way in which calls continue each other, from the first word on."""
    open_chains = [[call] for call in calls if not call.partial]
    chains: list[list[Call]] = []
    while open_chains:
        chain = open_chains.pop()
        chains.append(chain)
        text = "".join(word for call in chain for word in call.said)
        open_chains += [[*chain, call] for call in calls if text and call not in chain and call.partial == text]
    return chains


def _fits(chain: list[Call], outcome: Outcome) -> bool:
    shown = _shown(chain, outcome.ask.stop, whole=outcome.answer is not None)
    if outcome.answer is None:
        # What arrived too late for the caller, or after he left, is not shown.
        late = outcome.end in ("left", "cancelled", "DeadlineExceeded")
        return shown.startswith(outcome.shown) if late else shown == outcome.shown
    words = [word for call in chain for word in call.said]
    # With all that was asked for there is nothing left to say but the finish.
    ended = chain[-1].whole or len(words) >= outcome.ask.words or (outcome.ask.stop and STOP in "".join(words))
    return ended and shown == outcome.shown and chain[-1].backend == outcome.answer.backend
