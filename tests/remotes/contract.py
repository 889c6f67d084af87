"""What the contracts here have in common: servers that count, and that can be filled, restarted and asked in vain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Generic, TypeVar

from edgewise.backends import Backend
from edgewise.backends.contract import CancellationTests, LifetimeTests, RemoteTests
from edgewise.core.content import GenerateInput, Message

from .counting import BREAKING, LASTING
from .counting_service import CountingService

S = TypeVar("S", bound=CountingService)


class ServedContract(LifetimeTests, CancellationTests, RemoteTests, Generic[S]):
    """Subclasses say which server, and how a backend is made for it."""

    __test__ = False

    servers: ClassVar[list[Any]] = []  # of S, which class variables cannot say
    breaking = BREAKING

    @classmethod
    def server(cls) -> S:
        """A new server."""
        raise NotImplementedError

    @classmethod
    def client(cls, server: S, *, knows: bool) -> Backend:
        """A backend for it, with a model that it ``knows`` or one that it does not."""
        raise NotImplementedError

    def lasting(self) -> GenerateInput:
        return self.call(Message.user(LASTING), max_output_tokens=512)

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Backend]:
        server = cls.server()
        await server.start()
        cls.servers = [*cls.servers, server]
        try:
            yield cls.client(server, knows=True)
        finally:
            cls.servers.remove(server)
            await server.stop()

    @classmethod
    async def idle(cls, backend: Backend) -> None:
        for server in cls.servers:
            await server.idle()

    @classmethod
    def stranger(cls) -> Backend:
        return cls.client(cls.servers[0], knows=False)

    @classmethod
    def filled(cls) -> AbstractAsyncContextManager[None]:
        filled: AbstractAsyncContextManager[None] = cls.servers[0].filled()
        return filled

    @classmethod
    async def restart(cls) -> None:
        await cls.servers[0].restart()
