"""Where a service listens, as far as the network is concerned."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host's name or address and a port; ``port`` is ``None`` for a unix socket, whose path is ``host``.

    ``local``: on this machine, so that no network lies between.
    """

    host: str
    port: int | None
    local: bool = False

    @property
    def literal(self) -> bool:
        """Whether the host is an address, so that no name server is asked."""
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
