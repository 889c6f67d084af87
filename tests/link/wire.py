"""Two network namespaces with a wire between them, and what can be done to it.

The process that makes a `Wire` is the device's. ``python -m tests.link.wire FOLDER`` is the service's; it runs in a
network namespace of its own (``unshare --net``), and finds its certificates in the folder.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgewise.core.settings import FilePath, Seconds
from edgewise.testing import Script, ScriptedBackend

SERVICE = "10.77.0.2"
DEVICE = "10.77.0.1"
OTHER_DEVICE = "10.77.0.3"
TUNNELLED_DEVICE = "10.88.0.1"
TUNNELLED_SERVICE = "10.88.0.2"
PORT = 8443

_NOBODY = "02:00:00:00:00:99"
"""A hardware address that nothing on the wire has: what is sent there is dropped, and nobody is told."""


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


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
