"""Keep one known fault of older gRPC libraries (1.71 has it, 1.85 has not) out of the log.

With several event loops in a process, an event of the library wakes them all, one takes it, and the others find
nothing to read: a ``BlockingIOError`` in a callback of the library's, harmless, which the loop would log with its
traceback every time.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

_quiet: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def quieten() -> None:
    """Have the running loop pass over that one fault; everything else goes where it went before."""
    loop = asyncio.get_running_loop()
    if loop in _quiet:
        return
    _quiet.add(loop)
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in repr(context):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(handle)
