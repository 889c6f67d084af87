"""A server of gRPC's real stack that can be killed and started again where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from .counting_service import CountingService

Context = grpc.aio.ServicerContext[bytes, bytes]
Handlers = Mapping[str, Mapping[str, Any]]


class Service(CountingService):
    """What the protocols' servers have in common. Subclasses give their methods, by service and name."""

    def __init__(self) -> None:
        super().__init__()
        self.target = ""
        self._server: grpc.aio.Server | None = None

    def handlers(self) -> Handlers:
        """The methods: bytes in, bytes out."""
        raise NotImplementedError

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for name, methods in self.handlers().items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, dict(methods))])
        port = self._server.add_insecure_port(self.target or "127.0.0.1:0")
        self.target = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
