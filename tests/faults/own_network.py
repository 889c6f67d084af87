"""A fault that needs a network and a file system of its own, where names are asked of another server.

``python -m tests.faults.own_network FAULT CALL FOLDER`` observes it there and prints the row, pickled.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

from ..link.wire import Hands

ROOT = Path(__file__).parents[2]


@lru_cache
def command() -> tuple[str, ...]:
    """What runs another command in a network of its own; skips, with the reason, where there can be none."""
    unshare = shutil.which("unshare")
    if sys.platform != "linux" or unshare is None:
        pytest.skip("needs Linux and util-linux' unshare")
    own = ("--net", "--mount") if os.geteuid() == 0 else ("--user", "--map-root-user", "--net", "--mount")
    tried = subprocess.run([unshare, *own, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace may be made here ({tried.stderr.strip()})")
    return (unshare, *own)


async def observed(fault: str, call: str, resolver: str, folder: Path) -> bytes:
    """The row of a fault and a call, pickled, where gRPC has this resolver of its own: ``ares`` or ``native``."""
    process = await asyncio.create_subprocess_exec(
        *(*command(), sys.executable, "-m", "tests.faults.own_network", fault, call, str(folder)),
        cwd=ROOT,
        env={**os.environ, "GRPC_DNS_RESOLVER": resolver},
        stdout=asyncio.subprocess.PIPE,
    )
    row, _ = await process.communicate()
    assert process.returncode == 0
    return row


def main() -> None:
    """Observe a fault here, and print the row."""
    from .cases import observe_here  # which imports this module

    fault, call, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    _connect()
    with _silent_name_server(folder) as server:
        row = asyncio.run(observe_here(fault, call, folder))
        assert server.recv(512, socket.MSG_DONTWAIT), "nobody asked for the name"
    sys.stdout.buffer.write(pickle.dumps(row))
    sys.stdout.flush()
    os._exit(0)  # a look-up of the system's waits on, in a thread that nothing interrupts


def _connect() -> None:
    """A network of this process alone, by which it counts as online."""
    hands = Hands()
    hands.link("set", index=hands.index("lo"), state="up")
    hands.link("add", ifname="here", kind="veth", peer={"ifname": "there"})
    hands.addr("add", index=hands.index("here"), address="10.78.0.1", prefixlen=24)
    for end in ("here", "there"):
        hands.link("set", index=hands.index(end), state="up")


@contextmanager
def _silent_name_server(folder: Path) -> Iterator[socket.socket]:
    """Every name is asked of this socket. Mounted over the machine's own file in this mount namespace alone."""
    name_servers = folder / "resolv.conf"
    name_servers.write_text("nameserver 127.0.0.1\n")
    subprocess.run(["mount", "--bind", str(name_servers), "/etc/resolv.conf"], check=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        yield server


if __name__ == "__main__":
    main()
