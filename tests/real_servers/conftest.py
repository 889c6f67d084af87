"""Real model servers, and backends that talk to them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.deadline import Deadline

from .results import Recorder
from .servers import start_mlserver, start_triton


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("EDGEWISE_WRITE_RESULTS"):
        config.pluginmanager.register(Recorder())


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = start_mlserver(tmp_path_factory.mktemp("mlserver"))
    yield running.target
    running.stop()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = start_triton(tmp_path_factory.mktemp("triton"))
    yield running.target
    running.stop()


class Connect:
    """Makes backends, and stops them at the test's end."""

    def __init__(self) -> None:
        self.made: list[GrpcBackend] = []

    def __call__(self, target: str, model: str, oip: OipSettings | None = None) -> GrpcBackend:
        oip = oip or OipSettings(generate=GenerateTensors())
        self.made.append(GrpcBackend("remote", GrpcSettings(target, ProtocolName.OIP, model, oip=oip)))
        return self.made[-1]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    connect = Connect()
    yield connect
    for backend in connect.made:
        await backend.stop()


def within(seconds: float) -> CallContext:
    return CallContext("request-1", Deadline.after(asyncio.get_running_loop().time(), seconds))
