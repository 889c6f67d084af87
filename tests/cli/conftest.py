"""The command in this process and as a process of its own, and servers for it to ask."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgewise.router.cli.main import edgewise
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

COMMAND = [sys.executable, "-m", "edgewise.router.cli"]

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command in this process, in a folder of the test's own: ``invoke("ask", "Hello")``."""

    def run(*arguments: str, text: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(edgewise, arguments, input=text)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    monkeypatch.chdir(tmp_path)
    return run


@contextmanager
def process(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, killed at the end if it still runs."""
    started = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()


@contextmanager
def serving(backend: ScriptedBackend) -> Iterator[str]:
    """A real server over a scripted backend, in a thread; gives its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> ModelServer:
        server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {backend.name: backend})
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def make_server() -> Iterator[Callable[[Script], str]]:
    """Starts a server that answers by a script; gives its address."""
    with ExitStack() as stack:

        def start(script: Script) -> str:
            return stack.enter_context(serving(ScriptedBackend("model", script)))

        yield start


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def closed_address() -> str:
    """A loopback address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def write_configuration(folder: Path, **targets: str) -> None:
    """An edgewise.yaml with a remote backend for each target, the earlier ones preferred; class secret goes nowhere."""
    backends = "".join(
        f"""\
  {name}:
    kind: grpc
    target: {target}
    location: {{process_in: [NL], store_in: [], operators: [NL]}}
    quality: {0.9 - 0.1 * rank}
"""
        for rank, (name, target) in enumerate(targets.items())
    )
    text = f"""\
version: 1
backends:
{backends}\
policy:
  data_classes:
    public: {{process_in: [any]}}
    secret: {{process_in: []}}
  default_data_class: public
  defaults: {{latency_budget: 20s}}
  tags: {{department: [ward, office]}}
"""
    (folder / "edgewise.yaml").write_text(text, encoding="utf-8")
