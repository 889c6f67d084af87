"""So that one caller does not take all places: how many calls each may have at once, running and waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc
import grpc.aio

from ...core.failure import AttemptError, FailureKind
from .callers import Caller, caller_of

_COME_BACK = 0.25
"""Seconds: it lies with the caller's own calls when one of them ends."""

Q = TypeVar("Q")
R = TypeVar("R")


class PeerLimit:
    """Counts the calls of each peer: who it proved to be, or the address of one that proved nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: Counter[Caller | str] = Counter()

    @contextmanager
    def one_of(self, context: grpc.aio.ServicerContext[Q, R]) -> Iterator[None]:
        """One call of this peer. Raises `AttemptError` (overloaded) where it has too many."""
        peer = _peer_of(context)
        if self._calls[peer] >= self._limit:
            raise AttemptError(FailureKind.OVERLOADED, "this caller has too many calls here", retry_after=_COME_BACK)
        self._calls[peer] += 1
        try:
            yield
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]


def _peer_of(context: grpc.aio.ServicerContext[Q, R]) -> Caller | str:
    caller = caller_of(context)
    # Without its port, which is another on each connection.
    return context.peer().rpartition(":")[0] if caller == Caller() else caller
