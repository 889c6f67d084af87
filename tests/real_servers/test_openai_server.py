"""OpenAI's API against llama.cpp's own server with a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.answer import Delta, Finish, FinishReason
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.failure import AttemptError, FailureKind

from .conftest import within
from .servers import start_llama

server = "llama"
"""What is tested here, for the results."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    running = start_llama(tmp_path_factory.mktemp("llama"))
    yield f"http://{running.target}/v1"
    running.stop()


@pytest.fixture
async def backend(url: str) -> AsyncIterator[OpenaiBackend]:
    backend = OpenaiBackend("llama", OpenaiSettings(url, "smollm2", "smollm2"))
    yield backend
    await backend.stop()


def question(text: str = "What is the capital of France?", tokens: int = 12) -> GenerateInput:
    return GenerateInput((Message.user(text),), max_output_tokens=tokens, temperature=0.0, seed=1)


async def test_an_answer_comes_in_pieces(backend: OpenaiBackend) -> None:
    events = [event async for event in backend.generate(question(), within(60))]
    pieces = [event.text for event in events if isinstance(event, Delta)]
    assert len(pieces) > 3
    assert isinstance(events[-1], Finish)


async def test_the_longest_answer_is_kept(backend: OpenaiBackend) -> None:
    events = [event async for event in backend.generate(question("Tell me a long story.", 4), within(60))]
    assert isinstance(events[-1], Finish)
    assert events[-1].reason is FinishReason.LENGTH


async def test_an_empty_stream_is_a_failure(backend: OpenaiBackend) -> None:
    # This server says 200, and then nothing, where the prompt is too long.
    with pytest.raises(AttemptError) as caught:
        async for _ in backend.generate(question("word " * 2000), within(60)):
            pass
    assert caught.value.kind is FailureKind.TRUNCATED


async def test_log_probabilities_come_with_the_pieces(backend: OpenaiBackend) -> None:
    call = replace(question(tokens=2), logprobs=1)
    deltas = [event async for event in backend.generate(call, within(60)) if isinstance(event, Delta)]
    assert all(event.logprobs and event.logprobs[0].logprob <= 0 for event in deltas)


async def test_a_closed_stream_frees_the_server_for_the_next(backend: OpenaiBackend) -> None:
    events = backend.generate(question("Count to a thousand.", 200), within(60))
    await anext(events)
    await events.aclose()
    assert [event async for event in backend.generate(question(tokens=2), within(60))]


async def test_vectors_for_each_token_are_no_embeddings(backend: OpenaiBackend) -> None:
    # What this server gives for a model that does not pool.
    with pytest.raises(AttemptError) as caught:
        await backend.embed(EmbedInput(("a cat", "a dog")), within(60))
    assert caught.value.kind is FailureKind.PROTOCOL
