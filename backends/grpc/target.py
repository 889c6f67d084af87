"""Where a service listens: parsing a target, and whether it is on this machine."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..endpoint import Endpoint

_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?):(?P<port>\d+)")
_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")
_LISTS = ("ipv4:", "ipv6:")
"""The schemes that take several addresses, with commas between them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A service's address. ``address`` is what gRPC takes; ``local`` is true of loopback and unix sockets.

    ``port`` is ``None`` for a unix socket, whose ``path`` is as the socket module wants it. ``others`` are the
    addresses that are listed after the first; ``local`` is true if all are.
    """

    address: str
    host: str
    port: int | None
    local: bool
    path: str = ""
    others: tuple[tuple[str, int], ...] = ()

    @property
    def several(self) -> bool:
        """Whether more than one address is listed."""
        return bool(self.others)

    @property
    def endpoint(self) -> Endpoint:
        """The same, as far as the network is concerned."""
        return Endpoint(self.host or self.path, self.port, self.local, self.others)


def parse_target(text: str) -> Target:
    """Read ``host:port``, ``dns:///host:port``, ``ipv4:…,…``, ``ipv6:[…]:port,…`` or ``unix:/path``.

    Raises ``ValueError`` with what is wrong. A port is always asked for: the library's silent 443 is a guess.
    """
    if text.startswith(("unix:", "unix-abstract:")):
        scheme, _, path = text.partition(":")
        if not path.strip("/"):
            raise ValueError("a unix socket needs a path, like `unix:/run/model.sock`")
        path = "\0" + path if scheme == "unix-abstract" else re.sub("^//+", "/", path)
        return Target(text, host="", port=None, local=True, path=path)
    if re.match(r"(https?|grpcs?|tcp)://", text):
        raise ValueError("a target is no URL; write `host:port`, and `tls:` beside it for what TLS needs")
    scheme = next((each for each in _SCHEMES if text.startswith(each)), "")
    listed = text.removeprefix(scheme)
    addresses = [_address(each) for each in (listed.split(",") if scheme in _LISTS else [listed])]
    host, port = addresses[0]
    return Target(text, host, port, all(is_loopback(each) for each, _ in addresses), others=tuple(addresses[1:]))


def _address(text: str) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise ValueError("cannot read it; write `host:port`, `[ipv6]:port`, `dns:///host:port` or `unix:/path`")
    port = int(match["port"])
    if not 0 < port < 65536:
        raise ValueError("a port lies between 1 and 65535")
    return match["host"].strip("[]"), port


def is_loopback(host: str) -> bool:
    """Whether a host's name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
