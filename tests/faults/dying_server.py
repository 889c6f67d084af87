"""A server that sends itself a signal: ``python -m tests.faults.dying_server SIGKILL asked``.

It does so when it is ``asked``, or ``within`` its answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from .h2_server import Session, listening
from .right_answers import EMBEDDED, GENERATED, TIME_TO_READ


async def main() -> None:
    """Print the address, and die or stop at the first request."""
    number, when = signal.Signals[sys.argv[1]], sys.argv[2]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer)
        session.begin()
        async for stream, path in session.requests():
            if when == "within":
                messages = EMBEDDED if path.endswith("Embed") else GENERATED
                session.headers(stream)
                for message in messages[:-1]:
                    session.message(stream, message)
                session.part_of_a_message(stream, messages[-1])
                await asyncio.sleep(TIME_TO_READ)
            os.kill(os.getpid(), number)

    async with listening(talk) as target:
        print(target, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
