"""The standard health service: the whole server under ``''`` and the service's name, every model under its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ...backends import Backend, HealthState

_EVERY = 0.25
"""Seconds between two looks at the backends. A look is a few attribute reads."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthReport:
    """Keeps the health service up to date with the backends. The whole is well while one model is ready."""

    SERVICE_NAME: str = health.SERVICE_NAME

    def __init__(self, backends: Mapping[str, Backend], service_name: str) -> None:
        self._backends = backends
        self._service_name = service_name
        self._servicer = health.aio.HealthServicer()
        self._watching: asyncio.Task[None] | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Offer the health service on ``server``."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Report now, and from now on."""
        await self._report()
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="edgewise-serve-health")

    async def stop(self) -> None:
        """Report everything as not serving, for good."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._servicer.enter_graceful_shutdown()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self._report()

    async def _report(self) -> None:
        ready = {name: backend.health().state is HealthState.READY for name, backend in self._backends.items()}
        whole = any(ready.values())
        for name, well in {**ready, "": whole, self._service_name: whole}.items():
            await self._servicer.set(name, _SERVING if well else _NOT_SERVING)
