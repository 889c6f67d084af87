"""What every platform tells of its network, by the standard library and psutil."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .network import Attachment, Way
from .opening import Opener

_UNUSED_PORT = 9
# One that goes on while the device sleeps, and one that does not.
_CLOCK_NAMES = {"linux": ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), "darwin": ("CLOCK_MONOTONIC", "CLOCK_UPTIME_RAW")}
_CLOCKS: tuple[int, ...] | None = (
    tuple(getattr(time, name) for name in _CLOCK_NAMES[sys.platform]) if sys.platform in _CLOCK_NAMES else None
)

_CELLULAR = ("wwan", "rmnet", "ppp")


class SystemNetwork(Opener):
    """The operating system's network where it only shows by looking: macOS and others, and Linux without netlink."""

    @property
    def polled(self) -> bool:
        """Whether changes only show by looking."""
        return True

    @property
    def watch_name(self) -> str:
        """How changes are noticed."""
        return "interfaces are looked at once a second while somebody wants to know"

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Nothing tells of changes here."""
        return lambda: None

    def attachment(self) -> Attachment:
        """Look at the interfaces."""
        import psutil

        running = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        addresses: set[str] = set()
        metered = None
        for name, each in psutil.net_if_addrs().items():
            usable = {address for entry in each if (address := _usable(entry.family, entry.address))}
            if name in running and usable:
                addresses |= usable
                metered = metered or _is_cellular(name) or None
        return Attachment(frozenset(addresses), metered)

    def way(self, address: str) -> Way | None:
        """Ask the routing table, by a datagram socket that sends nothing."""
        import psutil

        source = _source(address)
        if source is None:
            return None
        statistics = psutil.net_if_stats()
        for name, each in psutil.net_if_addrs().items():
            if any(entry.address.partition("%")[0] == source for entry in each):
                # A route outlives its link: without a carrier nothing leaves.
                return Way(name, source) if name in statistics and statistics[name].isup else None
        return Way("", source)

    def suspended(self) -> float:
        """Seconds asleep since the start: one clock goes on meanwhile, the other does not. 0 where there is no pair."""
        return 0.0 if _CLOCKS is None else time.clock_gettime(_CLOCKS[0]) - time.clock_gettime(_CLOCKS[1])


def _source(address: str) -> str | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _UNUSED_PORT))
            name: str = probe.getsockname()[0]
    except OSError:
        return None
    return name.partition("%")[0]


def _usable(family: int, address: str) -> str | None:
    """An address from which another machine can be reached, or ``None``."""
    bare = address.partition("%")[0]
    if family == socket.AF_INET:
        return None if bare.startswith("127.") else bare
    if family == socket.AF_INET6:
        return None if bare == "::1" or bare.lower().startswith("fe80:") else bare
    return None


def _is_cellular(interface: str) -> bool:
    if interface.startswith(_CELLULAR):
        return True
    try:
        return "DEVTYPE=wwan" in Path("/sys/class/net", interface, "uevent").read_text("utf-8")
    except (OSError, ValueError):
        return False
