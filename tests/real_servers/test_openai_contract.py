"""The whole contract over OpenAI's API, against llama.cpp's own server with a real model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

from edgewise.backends import Backend
from edgewise.backends.contract import CancellationTests, GenerationTests, LifetimeTests, RemoteTests
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend

from .servers import Running, start_llama


class TestLlamaServer(LifetimeTests, GenerationTests, CancellationTests, RemoteTests):
    running: ClassVar[Running]
    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    patience = 300.0
    concurrent = 1

    @classmethod
    def setup_class(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory()
        cls.running = start_llama(Path(cls._folder.name))
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        try:
            super().teardown_class()
        finally:
            cls.running.stop()
            cls._folder.cleanup()

    @classmethod
    def make(cls) -> Backend:
        # It works on one call at a time, and has a form of its own for schemas.
        settings = OpenaiSettings(f"http://{cls.running.target}/v1", "smollm2", max_concurrency=1, constrains=False)
        return OpenaiBackend("llama", settings)

    @classmethod
    async def restart(cls) -> None:
        cls.running.stop()
        cls.running.begin()
