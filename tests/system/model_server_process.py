"""A model server for tests, a process of its own: ``python model_server_process.py LISTEN [TOKEN]``.

Prints its address when it listens, and serves until standard input ends. Its model speaks slowly, a word every
20 ms, so that there is a middle to break.
"""

from __future__ import annotations

import asyncio
import sys

from edgewise.core.settings import Secret
from edgewise.router.serving.server import ModelServer
from edgewise.router.serving.settings import ServeSettings
from edgewise.testing import Script, ScriptedBackend

WORDS = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "small ", "boat ", "that ") * 4


async def main() -> None:
    tokens = tuple(Secret(token) for token in sys.argv[2:])
    server = ModelServer(
        ServeSettings(listen=sys.argv[1], tokens=tokens),
        {"slow": ScriptedBackend("slow", Script(words=WORDS, first_after=0.02, every=0.02))},
    )
    await server.start()
    print(server.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
