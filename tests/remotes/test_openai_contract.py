"""The contract over OpenAI's API, against a server that checks keys, models and fields."""

from __future__ import annotations

from edgewise.backends import Backend
from edgewise.backends.contract import EmbeddingTests, GenerationTests
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.settings import Secret

from .contract import ServedContract
from .counting import CONTEXT
from .openai_server import KEY, OpenaiServer


class TestOpenai(ServedContract[OpenaiServer], GenerationTests, EmbeddingTests):
    __test__ = True

    @classmethod
    def server(cls) -> OpenaiServer:
        return OpenaiServer()

    @classmethod
    def client(cls, server: OpenaiServer, *, knows: bool) -> Backend:
        settings = OpenaiSettings(
            server.url,
            "llm" if knows else "nobody",
            "vectors" if knows else "nothing",
            credentials=Secret(KEY),
            context_tokens=CONTEXT,
            max_concurrency=8,
        )
        return OpenaiBackend("hosted", settings)
