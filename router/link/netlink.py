"""Linux says when its network changes: a netlink socket rings, and whoever listens looks."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

from .interfaces import SystemNetwork
from .network import Network

log = logging.getLogger("edgewise")

# From <linux/rtnetlink.h>: links, IPv4 addresses and routes, IPv6 addresses and routes.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

_ENOUGH = 65536


class LinuxNetwork(SystemNetwork):
    """Linux's network. What the messages say is not read: they are the bell, and `attachment` and `way` are the look.

    One message too many for the socket's buffer is therefore no loss. Where netlink is forbidden, as in Android's
    sandbox, the network is looked at instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused: str | None = None

    @property
    def polled(self) -> bool:
        """Whether changes only show by looking."""
        return self._refused is not None

    @property
    def watch_name(self) -> str:
        """How changes are noticed."""
        if self._refused is None:
            return "netlink tells of every change"
        return f"{super().watch_name} (netlink cannot be used: {self._refused})"

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called at each change of a link, an address or a route."""
        try:
            bell = _open_bell()
        except OSError as error:
            self._refused = error.strerror or type(error).__name__
            return lambda: None
        loop = asyncio.get_running_loop()

        def ring() -> None:
            try:
                while bell.recv(_ENOUGH):
                    pass
            except BlockingIOError:
                pass
            except OSError as error:
                # ENOBUFS: some were lost, which changes nothing for a bell.
                log.debug("netlink: %s", error.strerror)
            changed()

        def end() -> None:
            loop.remove_reader(bell)
            bell.close()

        loop.add_reader(bell, ring)
        return end


def _open_bell() -> socket.socket:
    bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        bell.setblocking(False)
        bell.bind((0, _GROUPS))
    except OSError:
        bell.close()
        raise
    return bell


def system_network() -> Network:
    """This system's network, watched as well as it allows."""
    return LinuxNetwork() if sys.platform == "linux" else SystemNetwork()
