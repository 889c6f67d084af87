"""Real model servers, each from an environment of its own that `make test-servers` makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import GenerateTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.deadline import Deadline

HERE = Path(__file__).parent

_TRITON_LLM = """backend: "python"
model_transaction_policy { decoupled: true }
input [
  {name: "text_input" data_type: TYPE_STRING dims: [1]},
  {name: "sampling_parameters" data_type: TYPE_STRING dims: [1]},
  {name: "stream" data_type: TYPE_BOOL dims: [1] optional: true},
  {name: "exclude_input_in_output" data_type: TYPE_BOOL dims: [1] optional: true},
  {name: "return_finish_reason" data_type: TYPE_BOOL dims: [1] optional: true},
  {name: "return_num_input_tokens" data_type: TYPE_BOOL dims: [1] optional: true},
  {name: "return_num_output_tokens" data_type: TYPE_BOOL dims: [1] optional: true}
]
output [
  {name: "text_output" data_type: TYPE_STRING dims: [-1]},
  {name: "finish_reason" data_type: TYPE_STRING dims: [-1]},
  {name: "num_input_tokens" data_type: TYPE_UINT32 dims: [1]},
  {name: "num_output_tokens" data_type: TYPE_UINT32 dims: [-1]}
]
"""

_TRITON_ECHO = """backend: "python"
input [{name: "x" data_type: TYPE_TYPE dims: [-1, -1]}]
output [{name: "x" data_type: TYPE_TYPE dims: [-1, -1]}]
"""

TRITON_TYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int64": "INT64",
    "uint16": "UINT16",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "STRING",
}
"""The types that the echoing models take; one model each, named after it."""


def environment_of(name: str) -> Path:
    """The environment with that server; skips the test where there is none."""
    folder = os.environ.get(name)
    if not folder:
        pytest.skip(f"{name} names no environment; run `make test-servers`")
    return Path(folder).absolute()


def free_ports(count: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Running:
    """A server's process, in a group of its own: Triton's children outlive it otherwise."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str], port: int) -> None:
        self.target = f"127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while not _listens(port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                pytest.fail((folder / "log").read_text()[-2000:])
            time.sleep(0.1)  # a foreign process: there is no event to wait for

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = environment_of("EDGEWISE_MLSERVER")
    folder = tmp_path_factory.mktemp("mlserver")
    http, port, metrics = free_ports(3)
    ports = {"http_port": http, "grpc_port": port, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    (folder / "echo").mkdir()
    (folder / "echo" / "model-settings.json").write_text(
        json.dumps({"name": "echo", "implementation": "mlserver_runtime.Echo"})
    )
    shutil.copy(HERE / "mlserver_runtime.py", folder)
    running = Running([str(environment / "bin" / "mlserver"), "start", "."], folder, {}, port)
    yield running.target
    running.stop()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = environment_of("EDGEWISE_TRITON")
    packages = next(environment.glob("lib/python3*/site-packages"))
    folder = tmp_path_factory.mktemp("triton")
    backends = folder / "backends"
    shutil.copytree(packages / "pytriton" / "tritonserver" / "backends", backends)
    version = packages.parent.name.removeprefix("python")
    stubs = packages / "pytriton" / "tritonserver" / "python_backend_stubs" / version
    shutil.copy(stubs / "triton_python_backend_stub", backends / "python")
    models = {"llm": ("triton_llm.py", _TRITON_LLM)}
    for dtype, triton_type in TRITON_TYPES.items():
        models[dtype] = ("triton_echo.py", _TRITON_ECHO.replace("TYPE_TYPE", f"TYPE_{triton_type}"))
    for name, (source, configuration) in models.items():
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(configuration)
        shutil.copy(HERE / source, folder / "models" / name / "1" / "model.py")
    http, port = free_ports(2)
    command = [
        str(packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        *(f"--model-repository={folder / 'models'}", f"--backend-directory={backends}", "--allow-metrics=false"),
        *("--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={port}"),
    ]
    libraries = {
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(packages),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    running = Running(command, folder, libraries, port)
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
