"""What the link asks of the operating system and the network: the seam that tests replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...backends.endpoint import Endpoint
from ...core.failure import PathFault


@dataclass(frozen=True, slots=True)
class Way:
    """How packets leave for an address: by which interface, from which of our own addresses."""

    interface: str
    source: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """What this device's interfaces say: the addresses of those that run, loopback left out, and who pays.

    ``metered`` is ``None`` where the operating system does not say.
    """

    addresses: frozenset[str] = frozenset()
    metered: bool | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection stood: to which address, after how many seconds."""

    address: str
    seconds: float


class Unopened(Exception):
    """No connection came to stand."""

    def __init__(self, fault: PathFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Network(Protocol):
    """The operating system's network."""

    @property
    def watch_name(self) -> str:
        """How changes are noticed, for people."""

    @property
    def polled(self) -> bool:
        """Whether changes only show by looking."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called at each change, within the running loop; returns what ends that."""

    def attachment(self) -> Attachment:
        """Look at the interfaces. Returns at once."""

    def way(self, address: str) -> Way | None:
        """How packets would leave for an IP address; ``None`` where they cannot. Sends nothing."""

    def suspended(self) -> float:
        """Seconds for which this device has slept since it started."""

    async def open(self, endpoint: Endpoint, patience: float) -> Opened:
        """Open a connection and close it again, trying for so many seconds. Sends nothing on it. Raises `Unopened`."""
