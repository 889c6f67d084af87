"""A server around the model that counts, whatever it speaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .counting import Counting


class CountingService(ABC):
    """Can be killed and started again where it was, and filled."""

    def __init__(self) -> None:
        self.model = Counting()

    @abstractmethod
    async def start(self) -> None:
        """Listen, on the port of the last time."""

    @abstractmethod
    async def stop(self) -> None:
        """End at once, with all calls."""

    async def restart(self) -> None:
        """Die and come back."""
        await self.stop()
        await self.start()

    async def idle(self) -> None:
        """Return once the model works on nothing."""
        while self.model.running:  # noqa: ASYNC110  # the end of a call is no event here
            await asyncio.sleep(0)

    @asynccontextmanager
    async def filled(self) -> AsyncIterator[None]:
        """Without room while this is open."""
        self.model.full = True
        try:
            yield
        finally:
            self.model.full = False
