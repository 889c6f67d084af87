"""The program of a worker process: ``python -m edgewise.backends.process.main MODULE:FACTORY PID FD [FD FD]``.

Started by `child.Child` alone. The arguments name the engine, the application, the inherited socket, and where there is
such a thing the memory that is shared: what comes in, and what goes out. Everything else comes over the socket.
"""

from __future__ import annotations

import socket
import sys

from .hardening import harden
from .shared import SharedArea
from .worker import Worker


def main() -> None:
    """Serve until the application closes the socket or ends."""
    factory, application, channel, *areas = sys.argv[1:]
    harden()
    shared = (SharedArea(int(area)) for area in areas)
    Worker(int(application), socket.socket(fileno=int(channel)), factory, *shared).serve()


if __name__ == "__main__":
    main()
