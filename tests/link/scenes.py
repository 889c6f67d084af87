"""Scenes between a device and a service with a wire between them: how each way to lose it is lived through.

`python -m tests.link.scenes` must run in a network namespace of its own (``unshare --net``): that one is the device's.
The service is a second process, in a namespace of its own. Prints one line of JSON a scene.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import trustme

from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.testing import ScriptedBackend

from .wire import SERVICE, Wire

EVERY = 0.1
"""Seconds between two requests."""

_CONFIGURATION = """
version: 1
models: {tiny: {source: "file:tiny.gguf"}}
backends:
  service:
    kind: grpc
    target: 10.77.0.2:8443
    tls: {root_certificates: roots.pem}
    location: {process_in: [NL]}
    quality: 0.9
  phone: {kind: llama_cpp, model: tiny, location: device, quality: 0.3}
policy:
  data_classes:
    public: {process_in: [any]}
  defaults: {latency_budget: 20s, order: [quality]}
"""


def waited_for_a_core(*processes: int) -> float:
    """Seconds for which these processes could have run, and the machine was busy with others: the slowest thread's."""
    waits = []
    for process in processes:
        threads = Path(f"/proc/{process}/task").glob("*/schedstat")
        waits.append(max(int(each.read_text().split()[1]) for each in threads) / 1e9)
    return sum(waits)


class Scene:
    """A router that is asked ten times a second, and what is seen of its link. ``service`` is its process."""

    def __init__(self, router: AsyncRouter, service: int) -> None:
        self._processes = (os.getpid(), service)
        self._link = router.connectivity
        self._router = router
        self._loop = asyncio.get_running_loop()
        self.answers: list[tuple[float, float, str]] = []
        """When each request began, how long it took, and who answered it or how it failed."""
        self.states: list[str] = []

    async def ask(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as asking:
            while True:
                asking.create_task(self._ask())
                await asyncio.sleep(EVERY)

    async def watch(self) -> None:
        """Note every state until cancelled."""
        async with aclosing(self._link.changes()) as changes:
            async for status in changes:
                if self.states[-1:] != [status.state]:
                    self.states.append(str(status.state))

    async def settle(self) -> None:
        """Wait until the link has been online for a while."""
        await self.until(
            lambda: self._link.state == "online" and [by for *_, by in self.answers[-3:]] == ["service"] * 3
        )
        await asyncio.sleep(0.3)

    async def until(self, what: Callable[[], bool]) -> float:
        """Seconds until something holds."""
        began = self._loop.time()
        async with asyncio.timeout(60):
            while not what():  # noqa: ASYNC110  # measured from outside, as a user would see it
                await asyncio.sleep(0.005)
        return round(self._loop.time() - began, 3)

    async def lose(self, name: str, change: Callable[[], None], restore: Callable[[], None]) -> dict[str, object]:
        """Lose the link and get it back: seconds to notice, seconds to be used again, and the slowest answer."""
        await self.settle()
        since, waited = self._loop.time(), waited_for_a_core(*self._processes)
        change()
        offline = await self.until(lambda: self._link.state == "offline")
        await asyncio.sleep(0.7)
        restore()
        back = await self._used_again(self._loop.time())
        return {"scene": name, "offline": offline, "back": back, **self._since(since, waited)}

    async def blame(self, name: str, change: Callable[[], None], restore: Callable[[], None]) -> dict[str, object]:
        """Break the service and not the link: seconds to notice, what is told, and seconds to be used again."""
        await self.settle()
        since, waited = self._loop.time(), waited_for_a_core(*self._processes)
        change()
        noticed = await self.until(lambda: self._link.status.endpoints[0].reachability == "unreachable")
        (refusal,) = (await self._router.plan("x", data_class="public")).refusals
        told = {"state": self._link.state, "code": refusal.code, "why": refusal.sentence}
        await asyncio.sleep(0.5)
        restore()
        # Whether it is used then is a matter of how slow it has been, too.
        back = await self.until(lambda: self._link.status.endpoints[0].reachability == "reachable")
        return {"scene": name, "noticed": noticed, "told": told, "back": back, **self._since(since, waited)}

    async def move(self, name: str, change: Callable[[], None]) -> dict[str, object]:
        """Change the address: seconds until the service answers a request that began afterwards."""
        await self.settle()
        since, waited = self._loop.time(), waited_for_a_core(*self._processes)
        change()
        changed = self._loop.time()
        back = await self._used_again(changed)
        return {"scene": name, "back": back, **self._since(since, waited)}

    async def tunnel(self, name: str, wire: Wire) -> dict[str, object]:
        """A VPN comes up, carries the calls while the wire below does not, and ends: who answers, and when again."""
        await self.settle()
        since, waited = self._loop.time(), waited_for_a_core(*self._processes)
        wire.tunnel()
        up = await self._used_again(self._loop.time())
        await asyncio.sleep(0.5)
        wire.lose_both()
        silent = self._loop.time()
        await asyncio.sleep(1.5)
        carried = sorted({by for at, _, by in self.answers if at >= silent})
        wire.keep_both()
        wire.end_tunnel()
        back = await self._used_again(self._loop.time())
        return {"scene": name, "up": up, "carried": carried, "back": back, **self._since(since, waited)}

    async def flap(self, name: str, wire: Wire, times: int) -> dict[str, object]:
        """Let the link come and go: how often which state is told, and how soon it is used when it holds."""
        await self.settle()
        since, waited = self._loop.time(), waited_for_a_core(*self._processes)
        self.states.clear()
        watching = asyncio.create_task(self.watch())
        for _ in range(times):
            wire.down()
            await asyncio.sleep(0.3)
            wire.up()
            await asyncio.sleep(0.7)
        back = await self.until(lambda: self.answers[-1][2] == "service")
        watching.cancel()
        told = {state: self.states.count(state) for state in ("online", "limited", "offline")}
        return {"scene": name, "losses": times, "told": told, "back": back, **self._since(since, waited)}

    async def _used_again(self, since: float) -> float:
        """Seconds until the service has answered a request that began after this."""
        return await self.until(lambda: any(at > since and by == "service" for at, _, by in self.answers))

    def _since(self, at: float, waited: float) -> dict[str, object]:
        answers = [(took, by) for began, took, by in self.answers if began >= at - 1.0]
        failed = sorted({by for _, by in answers} - {"service", "phone"})
        return {
            "slowest_answer": round(max(took for took, _ in answers), 3),
            "failed": failed,
            "waited_for_a_core": round(waited_for_a_core(*self._processes) - waited, 3),
        }

    async def _ask(self) -> None:
        began = self._loop.time()
        try:
            by = (await self._router.generate("x", data_class="public")).backend
        except Exception as error:  # noqa: BLE001  # told, not judged
            by = type(error).__name__
        self.answers.append((began, self._loop.time() - began, by))


async def play(folder: Path, wire: Wire) -> None:
    """Play every scene, and print what each came to."""
    configuration = loads(_CONFIGURATION, folder)
    scenes: tuple[Callable[[Scene], Awaitable[dict[str, object]]], ...] = (
        lambda scene: scene.lose("link down", wire.down, wire.up),
        lambda scene: scene.lose("cable pulled at the other end", wire.pull, wire.plug),
        lambda scene: scene.lose("what is sent is lost", wire.lose_requests, wire.keep_requests),
        lambda scene: scene.lose("what is answered is lost", wire.lose_answers, wire.keep_answers),
        lambda scene: scene.lose("both are lost", wire.lose_both, wire.keep_both),
        lambda scene: scene.tunnel("a VPN comes up and ends", wire),
        lambda scene: scene.move("another address", wire.move),
        lambda scene: scene.blame("the service is down", lambda: wire.tell("stop"), lambda: wire.tell("start")),
        lambda scene: scene.blame(
            "a portal answers in its name", lambda: wire.tell("intercept"), lambda: wire.tell("start")
        ),
        lambda scene: scene.flap("the link comes and goes", wire, 6),
        lambda scene: scene.blame("the service hangs", wire.hang, wire.go_on),
    )
    for play_scene in scenes:
        # Each with a router of its own: after several losses one waits ever longer before it tells of a return.
        async with AsyncRouter(configuration, backends={"phone": ScriptedBackend("phone")}) as router:
            scene = Scene(router, wire.service)
            asking = asyncio.create_task(scene.ask())
            print(json.dumps(await play_scene(scene)), flush=True)
            asking.cancel()


def main() -> None:
    """The device's process, which starts the service's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trusted, foreign = trustme.CA(), trustme.CA()
        trusted.cert_pem.write_to_path(folder / "roots.pem")
        for authority, whose in ((trusted, ""), (foreign, "portal-")):
            certificate = authority.issue_cert(SERVICE)
            (folder / f"{whose}chain.pem").write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
            certificate.private_key_pem.write_to_path(folder / f"{whose}key.pem")
        command = ["unshare", "--net", sys.executable, "-m", "tests.link.wire", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
            try:
                assert service.stdout is not None
                assert service.stdout.readline().strip() == "ready"
                asyncio.run(play(folder, Wire(service)))
            finally:
                service.kill()


if __name__ == "__main__":
    main()
