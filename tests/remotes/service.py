"""A server of the real stack that can be killed and started again where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from .counting import Counting

Context = grpc.aio.ServicerContext[bytes, bytes]
Handlers = Mapping[str, Mapping[str, Any]]


class Service:
    """What the protocols' servers have in common. Subclasses give their methods, by service and name."""

    def __init__(self) -> None:
        self.model = Counting()
        self.target = ""
        self._server: grpc.aio.Server | None = None

    def handlers(self) -> Handlers:
        """The methods: bytes in, bytes out."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listen, on the port of the last time."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for name, methods in self.handlers().items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, dict(methods))])
        port = self._server.add_insecure_port(self.target or "127.0.0.1:0")
        self.target = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """End at once, with all calls."""
        if self._server is not None:
            await self._server.stop(0)

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
