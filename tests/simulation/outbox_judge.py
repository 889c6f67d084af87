"""Holds an outbox's story against what the documentation promises: nothing is lost, one answer each, and walls."""

from __future__ import annotations

from collections.abc import Iterator

from edgewise.core.content import GenerateInput
from edgewise.router.outbox import Ending, State
from edgewise.router.outbox.encoding import decode_answer

from .judge import _AMPLE, _shown
from .outbox_lives import LIVES, Life, Story, Submitted
from .requests import SAID, SECRET
from .rules import permitted
from .simulated import Call
from .world import TASKS

_TINY = 1e-6


def judge(story: Story) -> list[str]:
    """The broken promises, in words."""
    calls = _calls(story)
    found = [f"outbox: the loop complains: {each}" for each in story.complaints]
    found += ["outbox: a log line holds content" for each in story.logged if SECRET in each or SAID in each]
    told: dict[str, str] = {}
    for receipt, text in story.told:
        if told.setdefault(receipt, text) != text:
            found.append("outbox: two results were told for one receipt")
    for each in story.submitted:
        for said in (*_kept(story, each, told), *_sent(story, each, calls), *_order(story, each, calls)):
            found.append(f"outbox, request {each.ask.number}: {said}")
    waiting = any(entry.content is not None for entry in story.entries.values())
    if not waiting and SECRET.encode() in story.file:
        found.append("outbox: the file holds content of a request that has ended")
    return found


def _calls(story: Story) -> dict[int, list[tuple[Life, Call]]]:
    """What every backend of every life received, by the request's number."""
    found: dict[int, list[tuple[Life, Call]]] = {}
    for life in story.lives:
        for backend in life.backends.values():
            for call in backend.calls:
                assert isinstance(call.content, GenerateInput)
                text = call.content.messages[0].text
                found.setdefault(int(text[len(SECRET) : text.index(":")]), []).append((life, call))
    return found


def _kept(story: Story, each: Submitted, told: dict[str, str]) -> Iterator[str]:
    """It is there, with one end, which is the one that was told."""
    entry = story.entries.get(each.receipt)
    if entry is None:
        yield "its receipt is not known any more"
        return
    if entry.state is State.ANSWERED:
        assert entry.answer is not None
        answer = decode_answer(entry.answer)
        said = {
            _shown([call], each.ask.stop, whole=True)
            for life, call in _calls(story).get(each.ask.number, [])
            if call.backend == answer.backend
        }
        if answer.text not in said:
            yield "its answer is not what the backend said"
        if told.get(each.receipt, answer.text) != answer.text:
            yield "its answer is another one than was told"
    elif each.receipt in told and told[each.receipt] != f"dead: {entry.ending}":
        yield f"it was told as {told[each.receipt]}, and is {entry.ending or 'queued'}"
    if each.receipt in story.cancelled and entry.ending is not Ending.CANCELLED:
        yield "it was cancelled, and goes on"
    if SECRET in entry.sentence or SAID in entry.sentence:
        yield "its reason holds content"
    if entry.state is State.QUEUED and _could_go(story, each):
        yield f"it waits, and could have gone: {entry.sentence}"


def _could_go(story: Story, each: Submitted) -> bool:
    """Whether in the calm life a sound engine on this device may answer it, and has the time."""
    calm, ask = story.lives[LIVES], each.ask
    if _budget(calm, each) < _AMPLE or ask.first_token_budget is not None or calm.world.first_token_budget is not None:
        return False
    if each.order_key is not None or not ask.idempotent or any(rule.settings for rule in calm.world.rules):
        return False
    for plan in calm.world.backends:
        able = plan.on_device and plan.logprobs and set(plan.tasks) == set(TASKS)
        roomy = plan.max_concurrency >= 8 and plan.context_tokens >= 4000
        if able and roomy and permitted(calm.world, plan.name, ask, each.bounds, "online"):
            return True
    return False


def _sent(story: Story, each: Submitted, calls: dict[int, list[tuple[Life, Call]]]) -> Iterator[str]:
    """No send went where the walls of that very life forbade it, none after its end, none after its time."""
    entry = story.entries.get(each.receipt)
    for life, call in calls.get(each.ask.number, []):
        if not any(permitted(life.world, call.backend, each.ask, each.bounds, link) for link in life.links):
            yield f"in life {life.number} its content went to {call.backend}, which was not permitted"
        at = life.began + call.began
        # What was under way when its time was over, or when it gave way, may go on within its budget.
        may_go_on = entry is not None and entry.ending in (Ending.EXPIRED, Ending.DROPPED)
        longest = _budget(life, each) if may_go_on else 0.0
        if entry is not None and entry.ended_at is not None and at > entry.ended_at + longest + _TINY:
            yield f"it was sent {at - entry.ended_at:.1f} s after its end"
        if at > (entry.expires_at if entry is not None else at) + _budget(life, each) + _TINY:
            yield "it was sent after its time to live"


def _order(story: Story, each: Submitted, calls: dict[int, list[tuple[Life, Call]]]) -> Iterator[str]:
    """Nothing is sent before those with the same order key that are older have ended."""
    if each.order_key is None:
        return
    for older in story.submitted[: story.submitted.index(each)]:
        entry = story.entries.get(older.receipt)
        if older.order_key != each.order_key or entry is None:
            continue
        ended = float("inf") if entry.ended_at is None else min(entry.ended_at, entry.expires_at)
        for life, call in calls.get(each.ask.number, []):
            if life.began + call.began < ended - _TINY:
                yield f"it was sent before request {older.ask.number}, which it has to follow, had ended"


def _budget(life: Life, each: Submitted) -> float:
    """The seconds that a send may take; a rule may set two."""
    configured = float(life.world.latency_budget.removesuffix("s"))
    return each.ask.latency_budget or max(2.0, configured)
