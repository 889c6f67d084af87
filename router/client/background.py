"""An event loop in a thread of its own, on which blocking code runs coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ...core.errors import RouterClosed

T = TypeVar("T")


class Background:
    """The loop on which one router lives. ``close`` ends the router; the loop ends after it.

    It ends once: by `end`, when nobody holds it any more, or at the interpreter's exit. Any thread may use it.
    """

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="edgewise", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _end, close, self.loop, self._thread, self._process)

    @property
    def alive(self) -> bool:
        """Whether it has not been ended."""
        return self._end.alive

    def end(self) -> None:
        """Close the router, end all that still runs, and stop. Idempotent."""
        self._end()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine here. An interrupt (Ctrl-C) cancels it and is raised."""
        try:
            self._check_usable()
        except RouterClosed:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RouterClosed("this router was closed while the call ran") from None
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Run a function here."""

        async def called() -> T:
            return work()

        return self.run(called())

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            raise RouterClosed(
                "this router belongs to the parent process; make routers after the fork, or spawn instead"
            )
        if not self._end.alive:
            raise RouterClosed("this router is closed; make a new one")
        if threading.current_thread() is self._thread:
            raise RouterClosed("a blocking call within the router's own event loop would wait for itself")


def _end(
    close: Callable[[], Awaitable[None]], loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int
) -> None:
    if process != os.getpid():
        return  # a forked child: the parent's to end

    async def end() -> None:
        await close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await loop.shutdown_asyncgens()

    if threading.current_thread() is thread:
        # Dropped from within the loop, where nothing may block.
        loop.create_task(end()).add_done_callback(lambda _: loop.stop())
        return
    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
