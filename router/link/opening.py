"""Opening a connection to see whether one comes to stand. Nothing is ever sent on it."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...backends.endpoint import Endpoint
from ...core.failure import PathFault
from .network import Opened, Unopened

TRY_EVERY = 0.3
"""Seconds between two attempts beside each other: the system repeats a lost packet only after a second."""

MOST_ADDRESSES = 4

LOOK_UP_EVERY = 0.7
"""Seconds between two lookups of a name beside each other: the system repeats a lost question only after five."""

MOST_LOOKUPS = 8
"""Lookups of one name at once: each is a thread, for as long as the system goes on asking."""

_FAULTS = {
    errno.ECONNREFUSED: PathFault.REFUSED,
    errno.ECONNRESET: PathFault.REFUSED,
    errno.ENETUNREACH: PathFault.NO_ROUTE,
    errno.ENETDOWN: PathFault.NO_ROUTE,
    errno.EADDRNOTAVAIL: PathFault.NO_ROUTE,
}
"""Every other error is silence: a host that does not answer on its own network is one, too."""

_Address: TypeAlias = tuple[int, tuple[Any, ...]]  # as the socket module wants it for each family


@dataclass(slots=True)
class _Lookup:
    """A name that is being looked up, by so many threads; the last began at a time on the loop's clock."""

    found: asyncio.Future[list[_Address]]
    running: int = 0
    begun_at: float = -math.inf


class Opener:
    """Opens connections. Names are looked up in threads of their own: a resolver may hang long."""

    def __init__(self) -> None:
        self._lookups: dict[Endpoint, _Lookup] = {}

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
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while (left := until - loop.time()) > 0.001:
            lookup = self._lookups.get(endpoint)
            if lookup is None:
                lookup = self._lookups[endpoint] = _Lookup(loop.create_future())
            if lookup.running < MOST_LOOKUPS and loop.time() - lookup.begun_at >= LOOK_UP_EVERY:
                self._look_up(endpoint, lookup)
            try:
                async with asyncio.timeout(min(LOOK_UP_EVERY, left)):
                    return await asyncio.shield(lookup.found)
            except TimeoutError:
                continue
            except OSError:
                break
        raise Unopened(PathFault.NO_NAME)

    def _look_up(self, endpoint: Endpoint, lookup: _Lookup) -> None:
        """Ask once more, beside those who were asked before: the first answer counts, and no answer of the last."""
        loop = asyncio.get_running_loop()
        lookup.running += 1
        lookup.begun_at = loop.time()

        def end(addresses: list[_Address], error: OSError | None) -> None:
            lookup.running -= 1
            if lookup.found.done() or (lookup.running and not addresses):
                return
            del self._lookups[endpoint]
            if addresses:
                lookup.found.set_result(addresses)
            else:
                lookup.found.set_exception(error or OSError("no address"))
                lookup.found.exception()  # read: whoever asked may have gone

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
