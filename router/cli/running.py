"""Runs a command's asynchronous part. Ctrl-C, a hang-up and SIGTERM all end it cleanly, and look the same to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end. Raises ``KeyboardInterrupt`` where a signal ended it, after it has cleaned up."""
    stopped: list[int] = []

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            stopped.append(number)
            task.cancel()

        # SIGINT is asyncio's own to handle, in just this way.
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise
