"""Opening a connection to see whether one comes to stand. Nothing is ever sent on it."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import suppress
from typing import Any, TypeAlias

from ...backends.endpoint import Endpoint
from ...core.failure import PathFault
from .network import Opened, Unopened

TRY_EVERY = 0.3
"""Seconds between two attempts beside each other: the system repeats a lost packet only after a second."""

MOST_ADDRESSES = 4

_FAULTS = {
    errno.ECONNREFUSED: PathFault.REFUSED,
    errno.ECONNRESET: PathFault.REFUSED,
    errno.ENETUNREACH: PathFault.NO_ROUTE,
    errno.ENETDOWN: PathFault.NO_ROUTE,
    errno.EADDRNOTAVAIL: PathFault.NO_ROUTE,
}
"""Every other error is silence: a host that does not answer on its own network is one, too."""

_Address: TypeAlias = tuple[int, tuple[Any, ...]]  # as the socket module wants it for each family


class Opener:
    """Opens connections. Names are looked up in a thread of their own, one lookup a name: a resolver may hang long."""

    def __init__(self) -> None:
        self._lookups: dict[Endpoint, asyncio.Future[list[_Address]]] = {}

    async def open(self, endpoint: Endpoint, patience: float) -> Opened:
        """Open a connection and close it again, trying for so many seconds. Raises `Unopened`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        addresses = await self._addresses(endpoint, patience)
        failed: dict[_Address, PathFault] = {}
        tries: set[asyncio.Task[Opened | tuple[_Address, PathFault]]] = set()
        at = 0
        try:
            while (left := until - loop.time()) > 0.001:
                open_to_try = [address for address in addresses if address not in failed]
                tries.add(loop.create_task(_connect(open_to_try[at % len(open_to_try)])))
                at += 1
                done, tries = await asyncio.wait(
                    tries, timeout=min(TRY_EVERY, left), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    outcome = task.result()
                    if isinstance(outcome, Opened):
                        return outcome
                    failed[outcome[0]] = outcome[1]
                if len(failed) == len(addresses):
                    refused = PathFault.REFUSED in failed.values()
                    raise Unopened(PathFault.REFUSED if refused else next(iter(failed.values())))
            raise Unopened(PathFault.SILENT)
        finally:
            for each in tries:
                each.cancel()

    async def _addresses(self, endpoint: Endpoint, patience: float) -> list[_Address]:
        if endpoint.literal:
            return _resolve(endpoint)
        lookup = self._lookups.get(endpoint)
        if lookup is None:
            lookup = self._lookups[endpoint] = self._look_up(endpoint)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(lookup)
        except (TimeoutError, OSError):
            raise Unopened(PathFault.NO_NAME) from None

    def _look_up(self, endpoint: Endpoint) -> asyncio.Future[list[_Address]]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[_Address]] = loop.create_future()

        def end(addresses: list[_Address], error: OSError | None) -> None:
            self._lookups.pop(endpoint, None)
            if found.done():
                return
            if error is None and addresses:
                found.set_result(addresses)
            else:
                found.set_exception(error or OSError("no address"))
                found.exception()  # read: whoever asked may have gone

        def look() -> None:
            addresses, failure = [], None
            try:
                addresses = _resolve(endpoint)
            except OSError as error:
                failure = error
            except UnicodeError:  # a part of the name is empty, or too long for any
                failure = OSError("no name")
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(end, addresses, failure)

        # Not the loop's executor, whose few threads others need; a daemon, because nobody waits for it at the exit.
        threading.Thread(target=look, name="edgewise-name", daemon=True).start()
        return found


def _resolve(endpoint: Endpoint) -> list[_Address]:
    """Addresses of both families by turns, the system's first choice first."""
    hosts = [(endpoint.host, endpoint.port), *endpoint.others]
    entries = [entry for host, port in hosts for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    found = list(dict.fromkeys((entry[0], entry[4]) for entry in entries))
    first = [each for each in found if each[0] == found[0][0]]
    others = [each for each in found if each[0] != found[0][0]]
    mixed = [each for pair in zip(first, others, strict=False) for each in pair]
    rest = [each for each in found if each not in mixed]
    return [(int(family), address) for family, address in (mixed + rest)[:MOST_ADDRESSES]]


async def _connect(to: _Address) -> Opened | tuple[_Address, PathFault]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    family, address = to
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
    except OSError as error:
        return to, _FAULTS.get(error.errno or 0, PathFault.SILENT)
    return Opened(address[0], loop.time() - begun)
