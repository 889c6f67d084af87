"""Hands results to an application's callback as they come, those of earlier processes included."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ...core.errors import OutboxError
from .defect import where
from .entry import Entry, Receipt
from .errors import OutboxMissing
from .leases import LEASE_SECONDS, Lease
from .outbox import Outbox, Result, in_executor, result_of

log = logging.getLogger("edgewise")

Callback = Callable[[Result], Awaitable[None]]

LOOK_EVERY = 5.0
"""Seconds between two looks for what other processes have stored, and what has died of age."""

AGAIN_AFTER = 60.0
"""Seconds until a result comes again whose callback failed."""


class Delivery:
    """Calls back once for each result, one after the other, oldest first; in one process at a time.

    A result is dealt with when its callback has returned. Where that raises, or the process dies, it comes again.
    """

    def __init__(self, outbox: Outbox, callback: Callback, random_source: random.Random) -> None:
        self._outbox = outbox
        self._callback = callback
        self._random = random_source
        self._lease = Lease(outbox.store.database, secrets.token_hex(8), LEASE_SECONDS, name="deliver")
        self._passed_over: dict[Receipt, float] = {}

    async def run(self) -> None:
        """Deliver until cancelled. An outbox that cannot be used is said, and tried again."""
        told = ""
        try:
            while True:
                complaint = ""
                try:
                    await self._deliver_all()
                except OutboxMissing:
                    pass  # nothing was ever submitted
                except OutboxError as error:
                    complaint = str(error)
                except Exception as error:  # noqa: BLE001  # a defect: no result would come any more
                    complaint = f"a defect of edgewise ({where(error)})"
                if complaint and complaint != told:
                    log.error("results are not delivered, and tried again: %s", complaint)
                told = complaint
                await self._rest()
        finally:
            with suppress(OutboxError):
                await in_executor(self._lease.release)

    async def _deliver_all(self) -> None:
        # The lease is taken where there is something to deliver, so that an idle process writes nothing.
        while await self._next() is not None and await in_executor(self._lease.take, self._outbox.now()):
            entry = await self._next()
            if entry is None:
                return
            try:
                await self._callback(result_of(entry))
            except Exception as error:  # noqa: BLE001  # the application's own: it must not end the others' delivery
                log.error("a callback for a result failed (%s); it comes again", type(error).__name__)
                self._passed_over[entry.receipt] = asyncio.get_running_loop().time() + AGAIN_AFTER
            else:
                await in_executor(self._outbox.store.take, entry.receipt)

    async def _next(self) -> Entry | None:
        now = asyncio.get_running_loop().time()
        self._passed_over = {receipt: until for receipt, until in self._passed_over.items() if until > now}
        return await in_executor(self._outbox.store.next_result, self._outbox.now(), list(self._passed_over))

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY * self._random.uniform(0.8, 1.2)):
                await self._outbox.ended.wait()
        self._outbox.ended.clear()
