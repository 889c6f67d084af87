"""All work that runs, and the answers that are kept for whoever asks again.

Found by the caller together with what the caller calls it, so that nobody gets another's answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from ...backends import CallContext
from ...core.failure import AttemptError, FailureKind
from ...protos.v1 import model_service_pb2 as wire
from .callers import Caller
from .demand import Demand
from .work import Produce, Work

MOST_KEPT = 4096
MOST_BYTES_KEPT = 64 * 1024 * 1024
"""Bounds of all answers that are kept after their end: the oldest make room."""

Request = wire.GenerateRequest | wire.EmbedRequest | wire.ClassifyRequest | wire.CountTokensRequest | wire.InferRequest


@dataclass(frozen=True, slots=True)
class _Key:
    """Who asks, by which idempotency key, for what: another content under the same key is other work."""

    caller: Caller
    idempotency_key: str
    method: str
    data_classes: tuple[str, ...]
    content: bytes


class Works:
    """Begins work, and finds it again.

    ``resume_within``: seconds for which a stream goes on after its connection was lost, and may be resumed after its
    end. ``remember``: seconds for which a finished answer is kept for a second call with its idempotency key.
    """

    def __init__(self, resume_within: float, remember: float) -> None:
        self._resume_within = resume_within
        self._remember = remember
        self._secret = secrets.token_bytes(32)
        self._running: set[Work] = set()
        self._kept: OrderedDict[Work, asyncio.TimerHandle] = OrderedDict()
        self._bytes_kept = 0
        self._by_key: dict[_Key, Work] = {}
        self._by_stream: dict[tuple[Caller, str], Work] = {}
        self._labels: dict[Work, tuple[list[_Key], list[tuple[Caller, str]]]] = {}

    def join(self, caller: Caller, request: Request, produce: Produce, context: CallContext) -> Work:
        """The work that this call asks for: what runs or has run already by its idempotency key, or a new one.

        What runs goes on for as long as the call that gives it the most time, and as urgently as the most urgent one.
        """
        name = request.call.stream if self._resume_within > 0 and isinstance(request, wire.GenerateRequest) else ""
        if (caller, name) in self._by_stream:
            raise AttemptError(FailureKind.CONFLICT, "there is a stream of this name already")
        key = self._key(caller, request) if request.call.idempotency_key else None
        work = None if key is None else self._by_key.get(key)
        if key is not None and work is not None and not work.has(0):
            # Too long to have been kept, or being stopped: it is made again, because nobody can say it again.
            self._labels[work][0].remove(key)
            work = None
        if work is None:
            work = Work(produce, Demand(context), self._resume_within, self._ended)
            self._running.add(work)
            self._labels[work] = ([], [])
            if key is not None:
                self._by_key[key] = work
                self._labels[work][0].append(key)
        else:
            work.demand.join(context)
        if name:
            work.names.add(name)
            self._by_stream[caller, name] = work
            self._labels[work][1].append((caller, name))
        return work

    def resume(self, caller: Caller, name: str, after: int) -> Work:
        """The work whose stream has this name. Raises `AttemptError` (conflict) where it is not kept from there."""
        work = self._by_stream.get((caller, name))
        if work is None or not work.has(after):
            raise AttemptError(FailureKind.CONFLICT, "this stream is not kept here, or not any more")
        return work

    def release(self, caller: Caller, name: str) -> None:
        """Stop the work of a stream, unless somebody else still reads it."""
        work = self._by_stream.pop((caller, name), None)
        if work is not None:
            keys, streams = self._labels[work]
            streams.remove((caller, name))
            work.release(name)
            if work in self._kept and not keys and not streams:
                self._forget(work)

    async def stop(self) -> None:
        """End all work and forget everything."""
        running = list(self._running)
        for work in running:
            work.stop()
        for work in running:
            await work.stopped()
        while self._kept:
            self._forget(next(iter(self._kept)))

    def _key(self, caller: Caller, request: Request) -> _Key:
        call = wire.CallInfo()
        call.CopyFrom(request.call)
        request.ClearField("call")
        said = request.SerializeToString(deterministic=True)
        request.call.CopyFrom(call)
        # A digest instead of the content, which nobody should keep, made with a secret that dies with the process.
        digest = hashlib.blake2b(said, key=self._secret, digest_size=32).digest()
        return _Key(caller, call.idempotency_key, type(request).__name__, tuple(sorted(call.data_classes)), digest)

    def _ended(self, work: Work) -> None:
        self._running.discard(work)
        keys, streams = self._labels[work]
        if work.failure is not None:
            for key in keys:  # what failed may be tried again
                del self._by_key[key]
            keys.clear()
        seconds = max(self._remember if keys else 0.0, self._resume_within if streams else 0.0)
        self._kept[work] = asyncio.get_running_loop().call_later(seconds, self._forget, work)
        self._bytes_kept += work.size
        while len(self._kept) > MOST_KEPT or self._bytes_kept > MOST_BYTES_KEPT:
            self._forget(next(iter(self._kept)))

    def _forget(self, work: Work) -> None:
        self._kept.pop(work).cancel()
        self._bytes_kept -= work.size
        keys, streams = self._labels.pop(work)
        for key in keys:
            del self._by_key[key]
        for stream in streams:
            del self._by_stream[stream]
