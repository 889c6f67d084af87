"""A network that does as it is told, backends beyond it, and routers over both; all in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

import pytest

from edgewise.backends.endpoint import Endpoint
from edgewise.core.failure import AttemptError, FailureKind, PathFault
from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, BackendError, Offline
from edgewise.router.config import load
from edgewise.router.link.network import Attachment, Opened, Unopened, Way
from edgewise.testing import Script, ScriptedBackend

OWN = "192.0.2.1"
NEW = "198.51.100.7"

HOUR = 3600.0
MOST_IN_AN_HOUR = 8 + HOUR / 24.0
"""Probes of whoever merely watches: from every half second to every 24 to 36 s."""

CONFIGURATION = """
version: 1
models:
  tiny: {source: "file:tiny.gguf"}
backends:
  cloud: {kind: grpc, target: "203.0.113.5:443", location: {process_in: [NL]}, quality: 0.9}
  gateway: {kind: grpc, target: "192.0.2.9:443", location: {process_in: [NL]}, quality: 0.6}
  phone: {kind: llama_cpp, model: tiny, location: device, quality: 0.3}
policy:
  data_classes:
    public: {process_in: [any]}
  defaults: {latency_budget: 30s, order: [quality]}
"""


class FakeNetwork:
    """A network of which a test says what it does. ``faults`` strike connections, by the endpoint's host."""

    watch_name = "a test"

    def __init__(self) -> None:
        self.faults: dict[str, PathFault] = {}
        self.addresses = {OWN}
        self.metered: bool | None = None
        self.routes: dict[str, str | None] = {}
        self.seconds = 0.02
        self.polled = False
        self.asleep = 0.0
        self.opened: list[tuple[float, str]] = []
        self.watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.watchers.append(changed)
        return lambda: self.watchers.remove(changed)

    def attachment(self) -> Attachment:
        return Attachment(frozenset(self.addresses), self.metered)

    def way(self, address: str) -> Way | None:
        source = self.routes.get(address, min(self.addresses, default=None))
        return None if source is None or source not in self.addresses else Way("eth0", source)

    def suspended(self) -> float:
        return self.asleep

    async def open(self, endpoint: Endpoint, patience: float) -> Opened:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        self.opened.append((loop.time(), endpoint.host))
        while True:
            fault = self.faults.get(endpoint.host)
            if fault is PathFault.SILENT and loop.time() < until:
                await asyncio.sleep(min(0.3, until - loop.time()))
            elif fault in (None, PathFault.HUNG, PathFault.INTERCEPTED):
                await asyncio.sleep(self.seconds)
                return Opened(endpoint.host, self.seconds)
            else:
                assert fault is not None
                raise Unopened(fault)

    def change(self, *addresses: str) -> None:
        """From now on this device has these addresses, and says so."""
        self.addresses = set(addresses)
        for changed in list(self.watchers):
            changed()


class BeyondBackend(ScriptedBackend):
    """A scripted backend beyond the network, which shares its faults. ``asked`` are the probes that it got."""

    def __init__(self, name: str, network: FakeNetwork, host: str, script: Script | None = None) -> None:
        super().__init__(name, self._told)
        self._network = network
        self._own = script or Script()
        self.host = host
        self.local = False
        self.asked: list[float] = []
        self.renewed = 0

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, 443, self.local)

    async def probe(self, seconds: float) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        fault = self._network.faults.get(self.host)
        if fault is not None:
            raise AttemptError(FailureKind.UNREACHABLE, "a test said so", fault=fault)

    async def network_changed(self) -> None:
        self.renewed += 1

    def _told(self, number: int) -> Script:
        fault = self._network.faults.get(self.host)
        if fault in (PathFault.SILENT, PathFault.HUNG):
            return Script(silent_after=0)
        if fault is None:
            return self._own
        kind = FailureKind.PROTOCOL if fault is PathFault.INTERCEPTED else FailureKind.UNREACHABLE
        return Script(failure=AttemptError(kind, "a test said so", fault=fault))


class World:
    """A router with a cloud, a gateway on the LAN and a phone, on a network."""

    def __init__(self, folder: Path) -> None:
        self.network = FakeNetwork()
        self.cloud = BeyondBackend("cloud", self.network, "203.0.113.5")
        self.gateway = BeyondBackend("gateway", self.network, "192.0.2.9")
        self.phone = ScriptedBackend("phone")
        self._folder = folder

    def write(self, *names: str) -> Path:
        """The file of a configuration with these backends; all three where none is named."""
        lines = CONFIGURATION.splitlines()
        kept = [line for line in lines if not names or not line.startswith("  ") or _name(line) not in _ALL - {*names}]
        path = self._folder / "edgewise.yaml"
        path.write_text("\n".join(kept))
        return path

    def router(self, *names: str) -> AsyncRouter:
        """A router with these backends; all three where none is named."""
        backends = {name: getattr(self, name) for name in names or ("cloud", "gateway", "phone")}
        return AsyncRouter(
            load(self.write(*names)),
            backends=backends,
            network=self.network,
            random_source=random.Random(7),
            wall_clock=lambda: datetime(2026, 3, 2, 9, 30),
            sample=DeviceFacts,
        )


_ALL = frozenset({"cloud", "gateway", "phone"})


def _name(line: str) -> str:
    return line.strip().partition(":")[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world of one's own."""
    return World(tmp_path)


async def ask_for(router: AsyncRouter, seconds: float, every: float = 0.1) -> list[str]:
    """Ask again and again for so long; who answered each time, or the error's name."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    asked = []
    while loop.time() < until:
        asked.append(loop.create_task(_ask(router)))
        await asyncio.sleep(every)
    return list(await asyncio.gather(*asked))


async def _ask(router: AsyncRouter) -> str:
    try:
        return (await router.generate("x", data_class="public")).backend
    except Exception as error:  # noqa: BLE001  # told, not judged
        return type(error).__name__


async def state_after(router: AsyncRouter, state: str, within: float) -> float:
    """Seconds until the link is in this state; fails after ``within``."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with aclosing(router.connectivity.changes()) as changes, asyncio.timeout(within):
        async for status in changes:
            if status.state == state:
                return loop.time() - begun
    raise AssertionError("the link's changes ended")


async def lose_everything(world: World, router: AsyncRouter) -> None:
    """A request finds out that nothing comes back; the link says nothing of it."""
    world.network.faults = {"203.0.113.5": PathFault.SILENT, "192.0.2.9": PathFault.SILENT}
    with pytest.raises((BackendError, Offline)):
        await router.generate("x", data_class="public")
    assert router.connectivity.state == "offline"
    await asyncio.sleep(120.0)
    world.network.opened.clear()


def probes(world: World) -> int:
    """How often one endpoint was asked."""
    return max(sum(host == each for _, host in world.network.opened) for each in ("203.0.113.5", "192.0.2.9"))
