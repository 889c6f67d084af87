"""Each of a target's addresses by itself, for what only the server that has a stream can do.

Where calls are spread over several addresses, the library does not tell which one a call went to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import replace

from .connection import Connection
from .settings import Balancing, GrpcSettings, TlsSettings
from .target import parse_target

_MOST = 16
"""How many addresses are asked: each costs a connection."""


class EachAddress:
    """A connection to each address, opened when it is first needed."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings
        self._target = parse_target(settings.target)
        self._connections: dict[tuple[str, int], Connection] = {}

    async def connections(self) -> list[Connection]:
        """One for each address that the target has now; none where its name is not known."""
        try:
            addresses = await self._addresses()
        except OSError:
            return []
        for gone in self._connections.keys() - set(addresses):
            await self._connections.pop(gone).renew()  # closes what is idle; the rest ends with its calls
        for address in addresses:
            if address not in self._connections:
                self._connections[address] = Connection(self._only(*address))
        return [self._connections[address] for address in addresses]

    async def renew(self) -> None:
        """The next calls get new connections."""
        for connection in self._connections.values():
            await connection.renew()

    async def close(self) -> None:
        """End every connection."""
        for connection in self._connections.values():
            await connection.close()

    async def _addresses(self) -> list[tuple[str, int]]:
        target, loop = self._target, asyncio.get_running_loop()
        assert target.port is not None, "a unix socket is one address"
        found: dict[tuple[str, int], None] = {}
        for host, port in ((target.host, target.port), *target.others):
            for entry in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found[str(entry[4][0]), port] = None
        return list(found)[:_MOST]

    def _only(self, host: str, port: int) -> GrpcSettings:
        """The settings for one address, whose certificate must hold the name that the target's must."""
        scheme = f"ipv6:[{host}]" if ipaddress.ip_address(host).version == 6 else f"ipv4:{host}"
        tls = self._settings.tls
        if tls is None and not self._target.local:
            tls = TlsSettings()
        if tls is not None and tls.server_name is None:
            tls = replace(tls, server_name=self._target.host)
        return replace(self._settings, target=f"{scheme}:{port}", balancing=Balancing.FIRST, tls=tls)
