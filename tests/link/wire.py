"""Two network namespaces with a wire between them, and what can be done to it.

`python -m tests.link.wire` must run in a network namespace of its own (``unshare --net``): that one is the device's.
A second process, in a namespace of its own, is the service. Prints one line of JSON an event.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import trustme

from edgewise.core.settings import FilePath, Seconds
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend

SERVICE = "10.77.0.2"
DEVICE = "10.77.0.1"
OTHER_DEVICE = "10.77.0.3"
TUNNELLED_DEVICE = "10.88.0.1"
TUNNELLED_SERVICE = "10.88.0.2"
PORT = 8443

EVERY = 0.1
"""Seconds between two requests."""

_NOBODY = "02:00:00:00:00:99"
"""A hardware address that nothing on the wire has: what is sent there is dropped, and nobody is told."""

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


class Hands:
    """pyroute2 in a thread of its own: its blocking face runs an event loop, which cannot run within another."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        self._thread = ThreadPoolExecutor(1)
        self._ip = self._thread.submit(IPRoute).result()

    def link(self, *arguments: str, **more: object) -> None:
        """Add or change an interface."""
        self._thread.submit(self._ip.link, *arguments, **more).result()

    def addr(self, *arguments: str, **more: object) -> None:
        """Add or remove an address."""
        self._thread.submit(self._ip.addr, *arguments, **more).result()

    def route(self, *arguments: str, **more: object) -> None:
        """Add or remove a route."""
        self._thread.submit(self._ip.route, *arguments, **more).result()

    def neigh(self, *arguments: str, **more: object) -> None:
        """Add or remove a neighbour's hardware address."""
        self._thread.submit(self._ip.neigh, *arguments, **more).result()

    def index(self, name: str) -> int:
        """The number of an interface."""
        found: list[int] = self._thread.submit(self._ip.link_lookup, ifname=name).result()
        return found[0]


class Wire:
    """The wire between the device, which is this process, and the service. By pyroute2, so that no tool is needed."""

    def __init__(self, service: subprocess.Popen[str]) -> None:
        self._service = service
        self._ip = Hands()
        self._ip.link("set", index=self._ip.index("lo"), state="up")
        for name in ("wire", "vpn"):
            peer = {"ifname": name, "net_ns_fd": f"/proc/{service.pid}/ns/net"}
            self._ip.link("add", ifname=name, kind="veth", peer=peer)
        self._own, self._tunnel = self._ip.index("wire"), self._ip.index("vpn")
        self.attach(DEVICE)
        self.tell("attach")

    def tell(self, what: str) -> None:
        """Have the service's side do something, and wait until it has."""
        assert self._service.stdin is not None
        assert self._service.stdout is not None
        self._service.stdin.write(f"{what}\n")
        self._service.stdin.flush()
        said = self._service.stdout.readline().strip()
        if said != what:
            raise RuntimeError(f"the service's side said {said!r} to {what!r}")

    def attach(self, address: str) -> None:
        """Give this side an address, and switch it on."""
        self._ip.addr("replace", index=self._own, address=address, prefixlen=24)
        self._ip.link("set", index=self._own, state="up")

    def move(self) -> None:
        """Another address in place of the one that there is."""
        self._ip.addr("del", index=self._own, address=DEVICE, prefixlen=24)
        self.attach(OTHER_DEVICE)

    def tunnel(self) -> None:
        """A VPN comes up: an interface with an address of its own, and the service's route goes by it."""
        self._ip.addr("replace", index=self._tunnel, address=TUNNELLED_DEVICE, prefixlen=24)
        self._ip.link("set", index=self._tunnel, state="up")
        self._ip.route("replace", dst=f"{SERVICE}/32", gateway=TUNNELLED_SERVICE, oif=self._tunnel)

    def end_tunnel(self) -> None:
        """And goes down, its route and its address with it."""
        self._ip.addr("del", index=self._tunnel, address=TUNNELLED_DEVICE, prefixlen=24)
        self._ip.link("set", index=self._tunnel, state="down")

    def down(self) -> None:
        """The link goes down on this side."""
        self._ip.link("set", index=self._own, state="down")

    def up(self) -> None:
        """And up."""
        self._ip.link("set", index=self._own, state="up")

    def lose_requests(self) -> None:
        """What this side sends is lost; nothing says so."""
        _lose(self._ip, self._own, SERVICE)

    def keep_requests(self) -> None:
        """What it sends arrives again."""
        _keep(self._ip, self._own, SERVICE)

    def lose_answers(self) -> None:
        """What the service sends is lost; nothing says so."""
        self.tell("lose")

    def keep_answers(self) -> None:
        """What it sends arrives again."""
        self.tell("keep")

    def lose_both(self) -> None:
        """Nothing arrives anywhere."""
        self.lose_requests()
        self.lose_answers()

    def keep_both(self) -> None:
        """Everything arrives again."""
        self.keep_requests()
        self.keep_answers()

    @property
    def service(self) -> int:
        """The service's process."""
        return self._service.pid

    def hang(self) -> None:
        """The service's process is stopped: its system goes on taking connections."""
        self._service.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """And goes on."""
        self._service.send_signal(signal.SIGCONT)

    def pull(self) -> None:
        """The cable is pulled at the service's end: this side has no carrier, and its routes stay."""
        self.tell("pull")

    def plug(self) -> None:
        """And put back."""
        self.tell("plug")


def _lose(ip: Hands, link: int, address: str) -> None:
    ip.neigh("replace", dst=address, lladdr=_NOBODY, ifindex=link, state=0x80)


def _keep(ip: Hands, link: int, address: str) -> None:
    ip.neigh("del", dst=address, ifindex=link)


async def serve(folder: Path) -> None:
    """The service's process: it serves, and does to its side of the wire what standard input says."""
    from edgewise.router.serving.server import ModelServer
    from edgewise.router.serving.settings import ServeSettings

    loop = asyncio.get_running_loop()

    async def start(whose: str) -> ModelServer:
        chain, key = (FilePath(str(folder / f"{whose}{name}.pem")) for name in ("chain", "key"))
        settings = ServeSettings(listen=f"{SERVICE}:{PORT}", certificate=chain, key=key, drain=Seconds(0.1))
        server = ModelServer(settings, {"model": ScriptedBackend("model", Script(first_after=0.02, every=0.02))})
        await server.start()
        return server

    ip, own = Hands(), 0
    server = ModelServer(ServeSettings(), {})  # held, because one that nobody holds stops
    print("ready", flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        match line:
            case "attach":
                own = ip.index("wire")
                for link, address in ((own, SERVICE), (ip.index("vpn"), TUNNELLED_SERVICE)):
                    ip.addr("replace", index=link, address=address, prefixlen=24)
                    ip.link("set", index=link, state="up")
                server = await start("")
            case "stop":
                await server.stop()
            case "start":
                await server.stop()
                server = await start("")
            case "intercept":
                await server.stop()
                server = await start("portal-")
            case "pull":
                ip.link("set", index=own, state="down")
            case "plug":
                ip.link("set", index=own, state="up")
            case "lose":
                for address in (DEVICE, OTHER_DEVICE):
                    _lose(ip, own, address)
            case "keep":
                for address in (DEVICE, OTHER_DEVICE):
                    _keep(ip, own, address)
        print(line, flush=True)


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
    """The device's process; with ``serve FOLDER``, the service's."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trusted, foreign = trustme.CA(), trustme.CA()
        trusted.cert_pem.write_to_path(folder / "roots.pem")
        for authority, whose in ((trusted, ""), (foreign, "portal-")):
            certificate = authority.issue_cert(SERVICE)
            (folder / f"{whose}chain.pem").write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
            certificate.private_key_pem.write_to_path(folder / f"{whose}key.pem")
        command = ["unshare", "--net", sys.executable, "-m", "tests.link.wire", "serve", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
            try:
                assert service.stdout is not None
                assert service.stdout.readline().strip() == "ready"
                asyncio.run(play(folder, Wire(service)))
            finally:
                service.kill()


if __name__ == "__main__":
    main()
