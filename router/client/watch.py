"""Looks at a configuration's file now and then, so that a new version of it comes into force by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable

from ...core.errors import ConfigurationError, RouterClosed

log = logging.getLogger("edgewise")

PAUSE = 1.0
"""Seconds between two looks, about: a look is one ``stat``, in a thread of the loop's executor."""

SETTLED = 0.1
"""Seconds for which a changed file must stay as it is before it is read: an editor may be at it still."""

_Sight = tuple[int, ...] | None


class Watch:
    """Watches the file that a router runs by, while it runs. ``reload`` takes its newest version.

    A version that does not load is reported once, to the log, and changes nothing.
    """

    def __init__(
        self, file: Callable[[], str], reload: Callable[[], Awaitable[None]], random_source: random.Random
    ) -> None:
        self._file = file
        self._reload = reload
        self._random = random_source
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Watch no more. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        # What has changed since the router read it, before anybody looked, is a new version too.
        taken: _Sight = ()
        while True:
            seen = await self._look()
            if seen != taken:
                await asyncio.sleep(SETTLED)
                if await self._look() == seen:
                    taken = seen
                    await self._take()
                continue
            await asyncio.sleep(PAUSE * self._random.uniform(0.8, 1.2))

    async def _look(self) -> _Sight:
        return await asyncio.get_running_loop().run_in_executor(None, _identity, self._file())

    async def _take(self) -> None:
        try:
            await self._reload()
        except ConfigurationError as error:
            log.error("the new version of %s is not taken, the running one stays:\n%s", self._file(), error)
        except RouterClosed:
            return
        except Exception as error:  # noqa: BLE001  # watching must go on; the text may hold anything
            log.error("the new version of %s is not taken: %s", self._file(), type(error).__name__)


def _identity(file: str) -> _Sight:
    """What differs for a file that was written anew, or put in another's place; ``None`` where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
