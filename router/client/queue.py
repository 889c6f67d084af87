"""Between a router and its outbox: opened with the first use, replayed while the router is open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ...core.content import Message
from ...core.decision import RefusalCode
from ...core.errors import InvalidRequest, OutboxError
from ..execution.conduct import Run
from ..execution.outcome import refused
from ..options import GenerateOptions
from .ask import identifier

if TYPE_CHECKING:
    from ..config import Configuration
    from ..outbox import Outbox, Receipt, Tally
    from ..outbox.delivery import Callback
    from ..outbox.replay import Answering

# What neither time nor a better link lifts: only another configuration would.
_FOR_GOOD = frozenset({RefusalCode.RESIDENCY, RefusalCode.CALLER_NARROWED, RefusalCode.CAPABILITY})


class Queue:
    """A router's outbox, if it uses one."""

    def __init__(
        self,
        router: Answering,
        configuration: Configuration,
        random_source: random.Random,
        wall_clock: Callable[[], datetime],
        *,
        replay: bool,
    ) -> None:
        self._router = router
        self._settings = configuration.policy_settings.offline
        self._random = random_source
        self._wall_clock = wall_clock
        self._replay = replay
        self._outbox: Outbox | None = None
        self._replaying: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        if replay:
            _ = self.outbox  # a router that cannot replay says so when it is made

    @property
    def outbox(self) -> Outbox:
        """The outbox. Raises `OutboxError` where none is configured."""
        if self._outbox is None:
            from ..outbox import Outbox  # SQLite loads when it is used

            self._outbox = Outbox(self._settings, lambda: self._wall_clock().timestamp())
        return self._outbox

    def start(self) -> None:
        """Begin to replay, if the router is to."""
        if self._replay:
            from ..outbox import Replayer

            self._replaying = asyncio.create_task(Replayer(self.outbox, self._router, self._random).run())

    async def submit(
        self,
        messages: Sequence[Message],
        run: Run,
        options: GenerateOptions,
        order_key: str | None,
        ttl: float | str | None,
        *,
        may_queue: bool,
    ) -> Receipt:
        """Queue what has been judged. Raises as `AsyncRouter.submit` does."""
        order_key = identifier(order_key, "order_key")
        if not may_queue:
            classes = " + ".join(run.plan.data_classes)
            raise InvalidRequest(f"content of class {classes} is never queued, by the policy; use `generate`")
        if not run.plan.steps and {refusal.code for refusal in run.plan.refusals} <= _FOR_GOOD:
            raise refused(run.plan, run.decision)
        residency = run.request.labels.residency
        if residency is not None:  # its conversation's, which the entry leaves behind
            options = GenerateOptions(**{**options, "residency": residency.names()})
        return await self.outbox.submit(messages, options, run.plan.data_classes, order_key=order_key, ttl=ttl)

    def on_result(self, callback: Callback) -> None:
        """Call back for each result from here on. Raises `OutboxError` where there is a callback already."""
        from ..outbox import Delivery

        if self._delivering is not None:
            raise OutboxError("this router has a callback for results already; give it one that does both")
        self._delivering = asyncio.create_task(Delivery(self.outbox, callback, self._random).run())

    async def flush(self, progress: Callable[[Tally], None]) -> Tally:
        """Try every queued request once."""
        from ..outbox import Replayer

        return await Replayer(self.outbox, self._router, self._random, progress).flush()

    async def close(self) -> None:
        """Stop delivering and replaying, and free the file."""
        for task in (self._delivering, self._replaying):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._outbox is not None:
            await self._outbox.close()
