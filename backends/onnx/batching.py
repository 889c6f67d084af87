"""Small requests that come at the same time, run as one. Runs in the application.

A batch is made of requests for one model, whose tensors differ in nothing but their number of rows, and which have the
same data classes: what is computed together may show in one another's results, if only in how long they take.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.content import Tensor
from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority
from ..backend import CallContext
from ..tensors import ITEM_BYTES, STRING, string_ends

Tensors = Mapping[str, Tensor]
Run = Callable[[str, Tensors, Priority, Deadline], Awaitable[dict[str, Tensor]]]
"""Runs a model on tensors."""

_URGENCY = tuple(Priority)
_OF_ONE = (FailureKind.INVALID_REQUEST, FailureKind.INTERNAL)
"""What one request's values may be the reason of."""
_STOPPED = AttemptError(FailureKind.PREEMPTED, "the batch was stopped")

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """A request in a batch. Whoever gave it up has cancelled its ``result``."""

    tensors: Tensors
    rows: int
    context: CallContext
    result: asyncio.Future[dict[str, Tensor]]

    def end(self, outputs: dict[str, Tensor]) -> None:
        if not self.result.done():
            self.result.set_result(outputs)

    def fail(self, error: BaseException) -> None:
        """With an error of its own where that can be, because raising writes a traceback into it."""
        if not self.result.done():
            own = AttemptError(error.kind, error.sentence) if isinstance(error, AttemptError) else error
            self.result.set_exception(own)


@dataclass(slots=True, eq=False)
class _Batch:
    model: str
    members: list[_Member] = field(default_factory=list)
    rows: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher:
    """Collects requests for ``wait`` seconds at most, ``most`` rows at most, and runs them together by ``run``.

    The results are those of single runs, as far as a model's rows do not depend on one another. A batch that fails for
    what may be one request's values, or whose outputs have other rows than its inputs, is run request by request.
    """

    def __init__(self, run: Run, *, wait: float, most: int) -> None:
        self._run = run
        self._wait = wait
        self._most = most
        self._open: dict[_Key, _Batch] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def infer(self, model: str, tensors: Tensors, context: CallContext) -> dict[str, Tensor]:
        """The outputs for these tensors. Raises what ``run`` raises.

        What has no time to wait runs at once, and by itself.
        """
        rows = _rows(tensors)
        hurried = context.deadline.passed(asyncio.get_running_loop().time() + self._wait)
        if rows is None or rows >= self._most or hurried:
            return await self._run(model, tensors, context.priority, context.deadline)
        key = _key(model, tensors, context.data_classes)
        if (batch := self._open.get(key)) is not None and batch.rows + rows > self._most:
            self._close(key)
            batch = None
        if batch is None:
            batch = self._open[key] = _Batch(model)
            self._keep(asyncio.create_task(self._conduct(key, batch)))
        member = _Member(tensors, rows, context, asyncio.get_running_loop().create_future())
        batch.members.append(member)
        batch.rows += rows
        if batch.rows == self._most:
            self._close(key)
        return await member.result

    def _close(self, key: _Key) -> None:
        """Nobody joins it any more, and nobody waits for more."""
        self._open.pop(key).closed.set()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _conduct(self, key: _Key, batch: _Batch) -> None:
        closed = asyncio.ensure_future(batch.closed.wait())
        await asyncio.wait({closed}, timeout=self._wait)
        closed.cancel()
        if self._open.get(key) is batch:
            self._close(key)
        members = [member for member in batch.members if not member.result.done()]
        if members:
            work = asyncio.ensure_future(self._together(batch.model, members))
            for member in members:
                # Work that nobody waits for any more is stopped.
                member.result.add_done_callback(lambda _: _all_done(members) and work.cancel())
            await asyncio.wait({work})
            # Whatever became of it, nobody waits for ever.
            if (error := _STOPPED if work.cancelled() else work.exception()) is not None:
                for member in members:
                    member.fail(error)

    async def _together(self, model: str, members: Sequence[_Member]) -> None:
        if len(members) == 1:
            await self._alone(model, members[0])
            return
        priority = max((member.context.priority for member in members), key=_URGENCY.index)
        deadline = max(member.context.deadline for member in members)
        try:
            outputs = await self._run(model, _joined([member.tensors for member in members]), priority, deadline)
        except AttemptError as error:
            if error.kind not in _OF_ONE:
                for member in members:
                    member.fail(error)
                return
            parts = None
        else:
            parts = _parted(outputs, [member.rows for member in members])
        if parts is None:
            await asyncio.gather(*(self._alone(model, member) for member in members if not member.result.done()))
            return
        for member, part in zip(members, parts, strict=True):
            member.end(part)

    async def _alone(self, model: str, member: _Member) -> None:
        try:
            member.end(await self._run(model, member.tensors, member.context.priority, member.context.deadline))
        except Exception as error:  # noqa: BLE001  # that of one is not that of the others, who go on
            member.fail(error)


def _all_done(members: Sequence[_Member]) -> bool:
    return all(member.result.done() for member in members)


def _key(model: str, tensors: Tensors, data_classes: Sequence[str]) -> _Key:
    kinds = sorted((name, tensor.dtype, tensor.shape[1:]) for name, tensor in tensors.items())
    return (model, frozenset(data_classes), *kinds)


def _rows(tensors: Tensors) -> int | None:
    """How many rows all of the tensors have; None for tensors that cannot be joined with others."""
    extents = {tensor.shape[:1] for tensor in tensors.values()}
    if len(extents) != 1 or () in extents:
        return None
    ((rows,),) = extents
    return rows if rows > 0 and all(_is_whole(tensor) for tensor in tensors.values()) else None


def _is_whole(tensor: Tensor) -> bool:
    """Whether its bytes are what its type and shape say: else other requests would get its rows."""
    if any(extent < 0 for extent in tensor.shape):
        return False
    count = math.prod(tensor.shape)
    if tensor.dtype == STRING:
        return string_ends(tensor.data, count) is not None
    return len(tensor.data) == count * ITEM_BYTES.get(tensor.dtype, -1)


def _joined(requests: Sequence[Tensors]) -> dict[str, Tensor]:
    """The rows of all requests one below the other, as their bytes already are."""
    joined = {}
    for name, first in requests[0].items():
        parts = [request[name] for request in requests]
        rows = sum(part.shape[0] for part in parts)
        joined[name] = Tensor(first.dtype, (rows, *first.shape[1:]), b"".join(part.data for part in parts))
    return joined


def _parted(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, Tensor]] | None:
    """Each request's own rows; None where an output has not as many rows as went in."""
    if any(tensor.shape[:1] != (sum(rows),) for tensor in outputs.values()):
        return None
    parts: list[dict[str, Tensor]] = [{} for _ in rows]
    for name, tensor in outputs.items():
        for part, count, data in zip(parts, rows, _cut(tensor, rows), strict=True):
            part[name] = Tensor(tensor.dtype, (count, *tensor.shape[1:]), data)
    return parts


def _cut(tensor: Tensor, rows: Sequence[int]) -> Iterator[bytes]:
    """A tensor's bytes, cut after so many rows each."""
    width = math.prod(tensor.shape[1:])
    if tensor.dtype == STRING:
        ends = string_ends(tensor.data, math.prod(tensor.shape)) or []
        places = [0, *ends][::width] if width else [0] * (sum(rows) + 1)
    else:
        places = [row * width * ITEM_BYTES[tensor.dtype] for row in range(sum(rows) + 1)]
    at = 0
    for count in rows:
        yield tensor.data[places[at] : places[at + count]]
        at += count
