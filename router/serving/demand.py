"""Until when, and how urgently, a piece of work is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from ...backends import CallContext
from ...core.deadline import Deadline
from ...core.request import Priority

_URGENCY = tuple(Priority)

Bound = Callable[[CallContext], float]
"""One of the times that a call sets, on the loop's clock."""


class Demand:
    """What a call asks of its work, or all the calls that wait for the same: the latest bounds, the highest priority.

    Who waits for a place or for a first token by a bound hears of a later one.
    """

    def __init__(self, context: CallContext) -> None:
        self.context = context
        """What the backend is told, as it is now."""
        self._listeners: list[Callable[[], None]] = []

    def join(self, context: CallContext) -> None:
        """Another call waits for the same work."""
        now = self.context
        self.context = replace(
            now,
            deadline=max(now.deadline, context.deadline),
            start_by=_later(now.start_by, context.start_by),
            first_by=_later(now.first_by, context.first_by),
            priority=max(now.priority, context.priority, key=_URGENCY.index),
        )
        for tell in self._listeners:
            tell()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Generator[None, None, None]:
        """Call ``listener`` whenever more is asked."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @asynccontextmanager
    async def until(self, bound: Bound) -> AsyncGenerator[None, None]:
        """Do what is within until this bound, wherever it moves meanwhile. Raises `TimeoutError`."""
        async with asyncio.timeout_at(bound(self.context)) as patience:

            def move() -> None:
                if not patience.expired():
                    patience.reschedule(bound(self.context))

            with self.heard_by(move):
                yield


def deadline(context: CallContext) -> float:
    """When the call has ended."""
    return context.deadline.at


def start_by(context: CallContext) -> float:
    """Until when a call may wait for its place."""
    return min(first_by(context), deadline(context) if context.start_by is None else context.start_by.at)


def first_by(context: CallContext) -> float:
    """Until when a call may wait for its first token."""
    return min(deadline(context), deadline(context) if context.first_by is None else context.first_by.at)


def _later(one: Deadline | None, other: Deadline | None) -> Deadline | None:
    """The later bound; ``None`` is none but the call's deadline."""
    return None if one is None or other is None else max(one, other)
