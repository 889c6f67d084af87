"""Where no namespaces may be made: a relay in user space between the true client and server, that fails as told.

It cannot lose packets, so a dead link shows as a service that hangs or refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

CONFIGURATION = """
version: 1
models: {{tiny: {{source: "file:tiny.gguf"}}}}
backends:
  service: {{kind: grpc, target: "127.0.0.1:{port}", location: {{process_in: [NL]}}, quality: 0.9}}
  phone: {{kind: llama_cpp, model: tiny, location: device, quality: 0.3}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  defaults: {{latency_budget: 20s, order: [quality]}}
"""


class Relay:
    """Passes bytes between a port of its own and the server's, or keeps them."""

    def __init__(self, server: str) -> None:
        self._server = server.rpartition(":")[2]
        self._passing = asyncio.Event()
        self._passing.set()
        self._listening: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse, and end what stands."""
        assert self._listening is not None
        self._listening.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def hold(self) -> None:
        """Take connections and bytes, and pass none on."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass on what was held."""
        self._passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        there, back = await asyncio.open_connection("127.0.0.1", int(self._server))
        for pipe in (self._pipe(reader, back), self._pipe(there, writer)):
            task = asyncio.create_task(pipe)
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._passing.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[tuple[AsyncRouter, Relay]]:
    """A router, a relay and a server, and a request ten times a second."""
    server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {"model": ScriptedBackend("model", Script())})
    await server.start()
    relay = Relay(server.address)
    await relay.open()
    configuration = loads(CONFIGURATION.format(port=relay.port), folder)
    async with AsyncRouter(configuration, backends={"phone": ScriptedBackend("phone")}) as router:
        asking = asyncio.create_task(_ask(router))
        await asyncio.sleep(0.5)
        yield router, relay
        asking.cancel()
    await relay.close()
    await server.stop()


async def _ask(router: AsyncRouter) -> None:
    async with asyncio.TaskGroup() as asked:
        while True:
            asked.create_task(router.generate("x", data_class="public"))
            await asyncio.sleep(0.1)


async def until(router: AsyncRouter, reachability: str) -> float:
    """Seconds until the service is judged so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(20.0):
        async for status in router.connectivity.changes():
            if status.endpoints[0].reachability == reachability:
                break
    return loop.time() - began


async def test_a_relay_that_refuses_is_seen_and_used_again(tmp_path: Path) -> None:
    async with world(tmp_path) as (router, relay):
        await until(router, "reachable")
        await relay.close()
        seen = await until(router, "unreachable")
        assert "is down" in router.connectivity.status.endpoints[0].why
        await relay.open()
        back = await until(router, "reachable")
        print(f"refused: seen after {seen:.2f} s, back after {back:.2f} s")


async def test_a_relay_that_holds_everything_is_seen_and_used_again(tmp_path: Path) -> None:
    async with world(tmp_path) as (router, relay):
        await until(router, "reachable")
        relay.hold()
        seen = await until(router, "unreachable")
        assert "hangs" in router.connectivity.status.endpoints[0].why
        assert router.connectivity.state == "online"  # nothing on this machine says anything about the link
        relay.go_on()
        back = await until(router, "reachable")
        print(f"held: seen after {seen:.2f} s, back after {back:.2f} s")
