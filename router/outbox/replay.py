"""Sends what is queued: planned afresh each time, paced, one process at a time."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, Unpack

from ...core.answer import Answer
from ...core.content import Message
from ...core.errors import EdgewiseError, OutboxError, RouterClosed
from ...policies.plan import Plan
from ..link import Connectivity
from ..options import GenerateOptions, Prompt
from .defect import where
from .encoding import Unreadable, decode_request, encode_answer
from .entry import Ending, Entry, Receipt
from .errors import OutboxMissing
from .leases import LEASE_SECONDS, Lease
from .outbox import Outbox, in_executor
from .pacer import Pacer
from .return_of_link import ReturnOfLink
from .verdict import Consequence, Verdict, judge

T = TypeVar("T")
log = logging.getLogger("edgewise")

LONGEST_WAIT = 900.0
"""Seconds between two sends of one entry, at most."""

_FIRST_WAIT = 5.0
_LOOK_EVERY = 5.0
_REFUSED_FOR = 60.0
_MOST_AT_ONCE = 8
_CLEAN_EVERY = 60.0


class Answering(Protocol):
    """What answers: an `AsyncRouter`."""

    async def plan(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Plan:
        """What would happen now."""

    async def generate(self, prompt: Prompt, **options: Unpack[GenerateOptions]) -> Answer:
        """The ordinary way."""

    @property
    def connectivity(self) -> Connectivity:
        """The link."""


@dataclass(slots=True)
class Tally:
    """What a replay has done so far. ``total`` is how many waited when a flush began."""

    total: int = 0
    answered: int = 0
    waiting: int = 0
    dead: int = 0


class _LeaseLost(Exception):
    """Another process replays."""


class Replayer:
    """Replays one outbox through one router, as fast as ``pacer`` says. ``progress`` hears of every change.

    Where it crashes, another one takes over after ``lease_seconds``.
    """

    def __init__(
        self,
        outbox: Outbox,
        router: Answering,
        random_source: random.Random,
        progress: Callable[[Tally], None] = lambda tally: None,
        pacer: Pacer | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.tally = Tally()
        self._outbox = outbox
        self._store = outbox.store
        self._router = router
        self._random = random_source
        self._progress = progress
        self._lease = Lease(outbox.store.database, secrets.token_hex(8), lease_seconds)
        self._pacer = pacer or Pacer(random_source)
        self._sending = outbox.sending
        self._storing: set[asyncio.Future[Any]] = set()
        self._passed_over: dict[Receipt, float] = {}
        self._link = ReturnOfLink(outbox.added.set)
        self._renew_at = 0.0
        self._clean_at = 0.0

    async def run(self) -> None:
        """Replay until cancelled. What keeps it from that is said, and it tries again."""
        told = ""
        while True:
            complaint = ""
            try:
                await self._replay(once=False)
            except (_LeaseLost, OutboxMissing):
                pass
            except RouterClosed:
                return
            except OutboxError as error:
                complaint = str(error)
            except Exception as error:  # noqa: BLE001  # a defect: without the replay, what waits would wait for ever
                complaint = f"a defect of edgewise ({where(error)})"
            if complaint and complaint != told:
                log.error("the queue is not replayed, and tried again: %s", complaint)
            told = complaint
            if complaint:
                await asyncio.sleep(self._jittered(self._lease.seconds / 3))
            else:
                await self._rest(self._lease.seconds / 3)

    async def flush(self) -> Tally:
        """Try each queued entry once, now. Raises `OutboxError`, also where another process replays."""
        try:
            await self._replay(once=True)
        except OutboxMissing:
            pass  # nothing was ever submitted
        except _LeaseLost:
            raise OutboxError("another process replays this outbox; it will send what waits") from None
        return self.tally

    async def _replay(self, *, once: bool) -> None:
        self._renew_at = self._clean_at = 0.0
        await self._keep_lease()
        try:
            await self._clean()
            self._pacer.restart(self._time())
            if once:
                await in_executor(self._store.wake)
                self.tally.total = await in_executor(self._store.count_queued)
                self._progress(self.tally)
            while True:
                waiting = await in_executor(self._store.count_queued) > 0
                if waiting or self._sending:
                    await self._keep_lease()
                else:
                    self._renew_at = 0.0  # an idle process writes nothing
                await self._clean()
                await self._heed_link(waiting=waiting)
                if not await self._send_next(once):
                    return
        finally:
            self._link.stop_waiting()
            await self._stop_sending()
            with suppress(OutboxError):
                await in_executor(self._lease.release)

    async def _send_next(self, once: bool) -> bool:
        """Start one send, or rest for a while where there is none to start; false where none will come."""
        # What is being sent now may be what others of its order key wait for.
        may_come = bool(self._sending) or not once
        entry = await self._next(once)
        if entry is None:
            if may_come:
                await self._rest(_LOOK_EVERY)
            return may_come
        await asyncio.sleep(self._pacer.turn(self._time()))
        if await in_executor(self._store.begin_send, entry.receipt, self._lease, self._outbox.now()):
            if once:
                self._passed_over[entry.receipt] = float("inf")
            task = self._sending[entry.receipt] = asyncio.create_task(self._send(entry))
            task.add_done_callback(partial(self._sent, entry.receipt))
        else:
            self._renew_at = 0.0
        return True

    async def _next(self, once: bool) -> Entry | None:
        """The first entry that a plan permits to go now."""
        while len(self._sending) < _MOST_AT_ONCE:
            now = self._time()
            self._passed_over = {receipt: until for receipt, until in self._passed_over.items() if until > now}
            passing_over = [*self._sending, *self._passed_over]
            due = await in_executor(self._store.due, self._outbox.now(), LONGEST_WAIT, passing_over)
            if not due:
                return None
            for entry in due:
                await self._keep_lease()  # a plan takes its time, and there may be thousands
                if (given_up := self._defect(entry)) is not None:
                    await in_executor(self._bury, entry, *given_up)
                    continue
                reason = await self._why_not(entry)
                if reason is None:
                    return entry
                self._passed_over[entry.receipt] = float("inf") if once else now + self._jittered(_REFUSED_FOR)
                await self._wait(entry, reason)
        return None

    def _defect(self, entry: Entry) -> tuple[Ending, str] | None:
        """Why it must never be tried again."""
        if entry.strikes >= self._outbox.settings.max_sends:
            return Ending.POISON, "each time that it was sent, the process died"
        try:
            _request(entry)
        except Unreadable:
            return Ending.UNREADABLE, "what is stored of it cannot be read"
        return None

    async def _why_not(self, entry: Entry) -> str | None:
        """The reason why no backend may take the entry now; nothing is sent to find out."""
        prompt, options = _request(entry)
        try:
            plan = await self._router.plan(prompt, **options)
        except RouterClosed:
            raise
        except EdgewiseError as error:
            # It was valid when it was submitted: the policy has changed since, and may change back.
            return str(error)
        except Exception as error:  # noqa: BLE001  # a defect, which must not keep the others waiting
            log.error("a queued request cannot be planned: a defect of edgewise (%s)", where(error))
            return "planning it met a defect of edgewise"
        return None if plan.steps else plan.reason

    async def _wait(self, entry: Entry, reason: str) -> None:
        self.tally.waiting += 1
        self._progress(self.tally)
        if entry.sentence != reason:
            await in_executor(self._store.explain, entry.receipt, reason)

    async def _send(self, entry: Entry) -> None:
        try:
            await self._answer(entry)
        except OutboxError as error:
            log.warning("what became of a queued request could not be stored; it is sent again: %s", error)
            self._passed_over[entry.receipt] = self._time() + _REFUSED_FOR
            with suppress(OutboxError):
                await in_executor(self._store.take_back, [entry.receipt])
        except Exception as error:  # noqa: BLE001  # a defect: it counts as what this very content may have caused
            log.error("a queued request could not be sent: a defect of edgewise (%s)", where(error))
            await self._stored(self._settle, entry, Verdict(Consequence.STRUCK, "sending it met a defect of edgewise"))

    async def _answer(self, entry: Entry) -> None:
        prompt, options = _request(entry)
        try:
            answer = await self._router.generate(prompt, **options)
        except RouterClosed:
            await self._stored(self._store.take_back, [entry.receipt])
        except EdgewiseError as error:
            self._pacer.went_badly()
            await self._stored(self._settle, entry, judge(error))
        else:
            self._pacer.went_well()
            if await self._stored(self._store.finish, entry.receipt, encode_answer(answer), self._outbox.now()):
                self.tally.answered += 1

    def _settle(self, entry: Entry, verdict: Verdict) -> None:
        now = self._outbox.now()
        struck = verdict.consequence is Consequence.STRUCK
        if verdict.consequence is Consequence.DEAD:
            self._bury(entry, Ending.REFUSED, verdict.sentence)
        elif struck and entry.strikes + 1 >= self._outbox.settings.max_sends:
            self._bury(entry, Ending.POISON, verdict.sentence)
        else:
            self.tally.waiting += 1
            wait = min(LONGEST_WAIT, self._jittered(_FIRST_WAIT * 2 ** min(entry.waits, 16)))
            self._store.postpone(entry.receipt, now + wait, verdict.sentence, broken=struck)

    def _bury(self, entry: Entry, ending: Ending, sentence: str) -> None:
        if self._store.bury(entry.receipt, ending, sentence, self._outbox.now()):
            self.tally.dead += 1

    async def _stored(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what must not be cut short: an answer that came is stored, also where the router closes meanwhile."""
        storing = asyncio.ensure_future(in_executor(function, *arguments))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        return await asyncio.shield(storing)

    def _sent(self, receipt: Receipt, task: asyncio.Task[None]) -> None:
        del self._sending[receipt]
        self._progress(self.tally)
        self._outbox.added.set()
        self._outbox.ended.set()

    async def _stop_sending(self) -> None:
        sending = dict(self._sending)
        for task in sending.values():
            task.cancel()
        await asyncio.gather(*sending.values(), return_exceptions=True)
        await asyncio.gather(*self._storing, return_exceptions=True)
        stopped = [receipt for receipt, task in sending.items() if task.cancelled()]
        if stopped:
            with suppress(OutboxError):
                await in_executor(self._store.take_back, stopped)

    async def _keep_lease(self) -> None:
        now = self._time()
        if now >= self._renew_at:
            if not await in_executor(self._lease.take, self._outbox.now()):
                raise _LeaseLost
            self._renew_at = now + self._lease.seconds / 3

    async def _clean(self) -> None:
        """Now and then, end what has had its time and erase what has ended for good."""
        now = self._time()
        if now >= self._clean_at:
            await in_executor(self._store.condemn_altered, self._outbox.now())
            await in_executor(self._store.expire, self._outbox.now())
            await in_executor(self._store.forget, self._outbox.now() - self._outbox.settings.results_ttl)
            await in_executor(self._store.database.rewrite)
            self._clean_at = now + _CLEAN_EVERY

    async def _heed_link(self, *, waiting: bool) -> None:
        """While something waits, follow the link; what it lets pass again need not wait any more."""
        if waiting:
            self._link.wait(self._router.connectivity)
        else:
            self._link.stop_waiting()
        if self._link.endpoint_is_back():
            self._passed_over.clear()
        if self._link.is_back():
            await in_executor(self._store.wake)
            self._pacer.restart(self._time())

    async def _rest(self, seconds: float) -> None:
        """Until something changes in this process or at the link, or it is time to look."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._jittered(seconds)):
                await self._outbox.added.wait()
        self._outbox.added.clear()

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.8, 1.2)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def _request(entry: Entry) -> tuple[list[Message], GenerateOptions]:
    """What is to be asked. Raises `Unreadable`."""
    if entry.content is None:
        raise Unreadable
    prompt, options = decode_request(entry.labels, entry.content)
    options["idempotency_key"] = entry.idempotency_key
    return prompt, options
