"""A server that sends itself a signal when it is asked: ``python -m tests.faults.dying_server SIGKILL``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from .h2_server import Session, listening


async def main() -> None:
    """Print the address, and die or stop at the first request."""
    number = signal.Signals[sys.argv[1]]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        session.begin()
        async for _ in session.requests():
            os.kill(os.getpid(), number)

    async with listening(talk) as target:
        print(target, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
