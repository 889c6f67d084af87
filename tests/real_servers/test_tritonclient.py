"""Triton's own client calls a device, by `edgewise serve`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from edgewise.backends import Capabilities
from edgewise.core.request import Task
from edgewise.core.settings import Secret
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

from ..serving.onnx_models import triage
from .servers import environment_of

server = "tritonclient"
"""What is tested here, for the results."""

CALLS = Path(__file__).with_name("tritonclient_calls.py")


async def test_tritonclient_calls_a_device(tmp_path: Path) -> None:
    python = environment_of("EDGEWISE_TRITONCLIENT") / "bin" / "python"
    can = Capabilities(frozenset(Task), max_concurrency=4)
    backend = ScriptedBackend("m", Script(("one ", "two ", "three")), capabilities=can)
    async with triage(tmp_path) as sorter:
        settings = ServeSettings(listen="127.0.0.1:0", tokens=(Secret("right"),))
        server = ModelServer(settings, {"m": backend, "sorter": sorter})
        await server.start()
        try:
            run = await asyncio.create_subprocess_exec(
                python, CALLS, server.address, "right", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            said, complaints = await asyncio.wait_for(run.communicate(), 60)
        finally:
            await server.stop()
    assert run.returncode == 0, complaints.decode()
    assert json.loads(said) == {
        "live": True,
        "ready": True,
        "model ready": True,
        "server": "edgewise",
        "inputs": ["sampling_parameters", "stream", "text_input"],
        "echoed": [True] * 5,
        "by its own metadata": {
            "doubled": [[2.0] * 3, [2.0] * 3],
            "as_double": [1.0, 1.0],
            "same": ["1", "1"],
        },
        "whole": "one two three",
        "streamed": ["one ", "two ", "three", "", "stop"],
        "no such model, streamed": ["error: no model of this name is served here"],
        "no such model": "StatusCode.NOT_FOUND",
        "no token": "StatusCode.UNAUTHENTICATED",
    }
