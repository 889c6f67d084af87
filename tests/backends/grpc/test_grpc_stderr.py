"""What a peer says as it closes a connection does not reach stderr, unless the user asks for the library's log."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FRAMES = """
import asyncio, struct
def frame(kind, payload):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload
SETTINGS = frame(4, b"")
GOAWAY = frame(7, struct.pack("!II", 0, 11) + b"plover")
"""

CLIENT = """
from edgewise.backends import CallContext
from edgewise.backends.grpc import KIND, GrpcSettings
from edgewise.core.content import EmbedInput
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError
from edgewise.core.settings import Secret
ended = asyncio.Event()
async def talk(reader, writer):
    writer.write(SETTINGS)
    await reader.readuntil(b"authorization")
    writer.write(GOAWAY)
    await writer.drain()
    await ended.wait()
    writer.close()
async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    target = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    backend = KIND.build("cloud", GrpcSettings(target, credentials=Secret("k")), {})
    context = CallContext("r", Deadline.after(asyncio.get_running_loop().time(), 1.0))
    try:
        await backend.embed(EmbedInput(("hello",)), context)
    except AttemptError as error:
        print(error.kind)
    ended.set()
    await backend.stop()
asyncio.run(main())
"""

SERVER = """
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
async def main():
    server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {})
    await server.start()
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + SETTINGS + GOAWAY + frame(6, b"answered"))
    await asyncio.wait_for(reader.readuntil(b"answered"), 10)  # frames are taken in order
    writer.close()
    await server.stop()
    print("taken")
asyncio.run(main())
"""


@pytest.mark.parametrize(("script", "printed"), [(CLIENT, "unreachable"), (SERVER, "taken")])
def test_a_peers_last_words_do_not_reach_stderr(script: str, printed: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    quiet = _run(script, environment)
    assert printed in quiet.stdout
    assert "plover" not in quiet.stderr
    assert "plover" in _run(script, {**environment, "GRPC_VERBOSITY": "INFO"}).stderr


def _run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FRAMES + script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
