"""Requests that outlive the process: queued on the disk, answered when something can, read by receipt."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ...core.answer import Answer
from ...core.content import Message
from ...core.duration import parse_duration
from ...core.errors import DeadLetter, InvalidRequest, OutboxError
from ...core.request import Priority
from ...policies.settings import OfflineSettings
from ..options import GenerateOptions
from .encoding import Unreadable, decode_answer, encode_request
from .entry import Ending, Entry, NewEntry, Receipt, State, expiry
from .errors import OutboxMissing
from .quota import Quota
from .store import Store

T = TypeVar("T")

_FIRST_LOOK = 0.02
_LONGEST_LOOK = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a queued request ended: with an answer, or as a dead letter."""

    receipt: Receipt
    answer: Answer | None = field(repr=False)
    error: DeadLetter | None = None


class Outbox:
    """A store of queued requests, for asyncio: what blocks runs in the loop's executor.

    ``wall_clock`` gives seconds since 1970. ``added`` is set whenever this process queues something,
    ``ended`` whenever it ends something. ``sending`` are the requests that it is sending now.
    """

    def __init__(self, settings: OfflineSettings, wall_clock: Callable[[], float]) -> None:
        if settings.outbox is None:
            raise OutboxError("no outbox is configured; name its file in `policy.offline.outbox`")
        self.settings = settings
        self.store = Store(Path(settings.outbox), settings.encryption)
        self.now = wall_clock
        self.added = asyncio.Event()
        self.ended = asyncio.Event()
        self.sending: dict[Receipt, asyncio.Task[None]] = {}
        self._quota = Quota(settings.max_entries, settings.max_bytes, settings.when_full)

    async def close(self) -> None:
        """Free the file."""
        await in_executor(self.store.close)

    async def submit(
        self,
        messages: Sequence[Message],
        options: GenerateOptions,
        data_classes: Sequence[str],
        *,
        order_key: str | None,
        ttl: float | str | None,
    ) -> Receipt:
        """Queue a request whose options have been judged. The receipt stands for a commit on the disk."""
        labels, content = encode_request(messages, options, data_classes)
        now = self.now()
        new = NewEntry(
            receipt=Receipt(secrets.token_hex(16)),
            idempotency_key=options.get("idempotency_key") or secrets.token_hex(16),
            labels=labels,
            content=content,
            submitted_at=now,
            expires_at=expiry(now, _seconds(self.settings.queue_ttl if ttl is None else ttl, "ttl")),
            priority=Priority(options.get("priority", Priority.NORMAL)),
            order_key=order_key,
        )
        receipt = await in_executor(self.store.add, new, self._quota)
        self.added.set()
        return receipt

    async def result(self, receipt: str, timeout: float | str | None = 0.0) -> Answer | None:
        """The answer, or ``None`` where there is none within ``timeout``; with ``None`` it waits as long as it takes.

        Raises `DeadLetter` for a request that ended without an answer, `OutboxError` for a receipt that is not known.
        """
        loop = asyncio.get_running_loop()
        patience = None if timeout is None else loop.time() + _seconds(timeout, "timeout")
        pause = _FIRST_LOOK
        while True:
            entry = await in_executor(self.store.find, receipt, self.now())
            if entry is None:
                kept = "answers are kept for `policy.offline.results_ttl`"
                raise OutboxError(f"the outbox does not know this receipt; {kept}")
            if entry.state is not State.QUEUED:
                ended = result_of(entry)
                if ended.error is not None:
                    raise ended.error
                return ended.answer
            left = pause if patience is None else patience - loop.time()
            if left <= 0:
                return None
            # Another process may be the one that stores the answer, so there is no event to wait for.
            await asyncio.sleep(min(pause, left))
            pause = min(_LONGEST_LOOK, pause * 1.5)

    async def results(self) -> AsyncGenerator[Result, None]:
        """All results that have not been dealt with, oldest first; ends when there is none.

        A result counts as dealt with when the next one is asked for, or the loop has ended: whoever dies while at it,
        gets it again.
        """
        while True:
            try:
                entry = await in_executor(self.store.next_result, self.now())
            except OutboxMissing:
                return
            if entry is None:
                return
            yield result_of(entry)
            await in_executor(self.store.take, entry.receipt)

    async def cancel(self, receipt: str) -> bool:
        """Give a queued request up, erase its content, and stop it where this process is sending it.

        False where it has ended already.
        """
        sentence = "the application cancelled it"
        try:
            cancelled = await in_executor(self.store.bury, receipt, Ending.CANCELLED, sentence, self.now())
        except OutboxMissing:
            return False
        if (sending := self.sending.get(Receipt(receipt))) is not None:
            sending.cancel()
        self.ended.set()
        return cancelled


async def in_executor(function: Callable[..., T], *arguments: object) -> T:
    """Run what blocks where it keeps nobody waiting."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def result_of(entry: Entry) -> Result:
    """What an entry came to that has ended."""
    if entry.answer is not None:
        try:
            return Result(entry.receipt, decode_answer(entry.answer))
        except Unreadable:
            sentence = "the queued request was answered, and what is stored of the answer cannot be read"
        return Result(entry.receipt, None, DeadLetter(sentence, entry.receipt, "unreadable"))
    reason = entry.ending or Ending.DROPPED
    sentence = f"the queued request ended without an answer ({reason}): {entry.sentence}"
    return Result(entry.receipt, None, DeadLetter(sentence, entry.receipt, reason.value))


def _seconds(value: float | str, what: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidRequest(f"{what}: {error}; give seconds, like 3600 or '24h'") from None
