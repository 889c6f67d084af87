"""Loads a model that is to be kept in memory, where the system allows for less. Prints what the backend says of it."""

from __future__ import annotations

import asyncio
import ctypes
import resource
import sys
from pathlib import Path

from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.settings import ModelName

PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14


async def main(path: Path) -> None:
    # Who may lock whatever there is loses that right, for all that is started from here.
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 14, 1 << 14))
    model = ModelFile("tiny", ModelSettings(f"file:{path}"), path.parent)
    settings = LlamaCppSettings(ModelName("tiny"), context_tokens=64, threads=1, mlock=True)
    backend = LlamaCppBackend("phone", settings, model)
    await backend.start()
    print(backend.health().state, backend.health().sentence)
    await backend.stop()


asyncio.run(main(Path(sys.argv[1])))
