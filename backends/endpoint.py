"""Where a service listens, as far as the network is concerned."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host's name or address and a port; ``port`` is ``None`` for a unix socket, whose path is ``host``.

    ``local``: on this machine, so that no network lies between. ``others`` are further addresses of the same service.
    """

    host: str
    port: int | None
    local: bool = False
    others: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """What a certificate must hold, where nothing else is said; gRPC takes a unix socket for localhost."""
        return "localhost" if self.port is None else self.host

    @property
    def literal(self) -> bool:
        """Whether it is one address, so that no name server is asked and only one way leads there."""
        if self.others:
            return False
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
