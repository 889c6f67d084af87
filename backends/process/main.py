"""The program of a worker process: ``python -m edgewise.backends.process.main MODULE:FACTORY FD``.

Started by `child.Child` alone. The arguments name the engine and the inherited socket; everything else comes over it.
"""

from __future__ import annotations

import socket
import sys

from .hardening import harden
from .worker import Worker


def main() -> None:
    """Serve until the application closes the socket or ends."""
    factory, descriptor = sys.argv[1:]
    harden()
    Worker(socket.socket(fileno=int(descriptor)), factory).serve()


if __name__ == "__main__":
    main()
