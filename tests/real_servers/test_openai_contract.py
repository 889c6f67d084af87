"""The whole contract over OpenAI's API, against llama.cpp's own server with a real model."""

from __future__ import annotations

from pathlib import Path

from edgewise.backends import Backend
from edgewise.backends.contract import CancellationTests, GenerationTests
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend

from .one_server import OneServer
from .servers import Running, start_llama


class TestLlamaServer(OneServer, GenerationTests, CancellationTests):
    __test__ = True
    server = "llama"
    patience = 300.0
    concurrent = 1

    @classmethod
    def begin(cls, folder: Path) -> Running:
        return start_llama(folder)

    @classmethod
    def make(cls) -> Backend:
        # It works on one call at a time, and has a form of its own for schemas.
        settings = OpenaiSettings(f"http://{cls.running.target}/v1", "smollm2", max_concurrency=1, constrains=False)
        return OpenaiBackend("llama", settings)
