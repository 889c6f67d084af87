"""A streamed answer, for blocking code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Self

from ...core.answer import Chunk
from ...core.errors import RouterClosed
from .background import Background


class BlockingStream(Iterator[Chunk]):
    """A streamed answer, for blocking code. Ends the work when closed, left, or no longer referenced."""

    def __init__(self, background: Background, begin: Callable[[], AsyncGenerator[Chunk, None]]) -> None:
        self._open = False
        self._background = background
        self._reading: asyncio.Task[Any] | None = None
        self._chunks = background.call(begin)
        self._open = True

    def __next__(self) -> Chunk:
        if not self._open:
            raise StopIteration
        try:
            chunk = self._background.run(self._next_chunk())
        except RouterClosed:
            if self._open:
                raise
            raise StopIteration from None  # another thread closed the stream
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self._open = False
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the work behind the stream; any thread may. Idempotent."""
        if not self._open:
            return
        self._open = False
        if self._background.alive:
            self._background.run(self._stop())

    async def _next_chunk(self) -> Chunk | None:
        self._reading = asyncio.current_task()
        try:
            return await anext(self._chunks, None)
        finally:
            self._reading = None

    async def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._chunks.aclose()
