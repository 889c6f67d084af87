"""Texts to vectors, against ONNX Runtime and tokenizers called directly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import tokenizers
from onnx import TensorProto, helper

from edgewise.backends import Backend, CallContext
from edgewise.backends.models import ModelFile, ModelSettings
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Embeddings
from edgewise.core.content import EmbedInput, InferInput
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task

Start = Callable[..., Awaitable[Backend]]
Context = Callable[[], CallContext]

TEXTS = (
    "The patient has had a mild fever since Tuesday.",
    "",
    "ok",
    "Grüße aus Zürich – 世界 🙂",
    "A much longer text, which goes on and on about nothing in particular. " * 6,
    "The train to the coast leaves at noon.",
    *(f"Sentence number {number} of {'many ' * number}." for number in range(15)),
)


def located(source: str) -> str:
    return str(ModelFile("m", ModelSettings(source), Path()).locate())


@cache
def _direct(model: str, tokenizer: str) -> tuple[Any, Any]:
    encoder = tokenizers.Tokenizer.from_file(located(tokenizer))
    encoder.no_padding()
    encoder.no_truncation()
    return onnxruntime.InferenceSession(located(model), providers=["CPUExecutionProvider"]), encoder


def reference(sources: dict[str, str], texts: tuple[str, ...], *, pooling: str = "mean", normalize: bool = True) -> Any:
    """One text after the other, without batches."""
    session, encoder = _direct(sources["minilm"], sources["minilm-tokenizer"])
    vectors = []
    for text in texts:
        encoding = encoder.encode(text)
        feeds = {
            "input_ids": numpy.array([encoding.ids]),
            "attention_mask": numpy.array([encoding.attention_mask]),
            "token_type_ids": numpy.array([encoding.type_ids]),
        }
        (hidden,) = session.run(["last_hidden_state"], feeds)
        vector = hidden[0].mean(axis=0) if pooling == "mean" else hidden[0, 0]
        vectors.append(vector / numpy.linalg.norm(vector) if normalize else vector)
    return numpy.array(vectors)


@pytest.fixture
def start_minilm(start: Start, minilm: dict[str, str]) -> Start:
    async def start_minilm(**settings: Any) -> Backend:
        return await start(minilm, task="embed", model="minilm", tokenizer="minilm-tokenizer", **settings)

    return start_minilm


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", True)])
async def test_vectors_equal_those_of_the_libraries_in_the_order_of_the_texts(
    start_minilm: Start, context: Context, minilm: dict[str, str], pooling: str, normalize: bool
) -> None:
    backend = await start_minilm(pooling=pooling, normalize=normalize)
    embeddings = await backend.embed(EmbedInput(TEXTS), context())
    vectors = to_array(embeddings.vectors)
    assert (vectors.dtype, vectors.shape) == (numpy.float32, (len(TEXTS), 384))
    expected = reference(minilm, TEXTS, pooling=pooling, normalize=normalize)
    assert numpy.abs(vectors - expected).max() < 1e-3
    assert embeddings.model == "minilm"


async def test_usage_counts_the_tokens_read_and_no_padding(
    start_minilm: Start, context: Context, minilm: dict[str, str]
) -> None:
    _, encoder = _direct(minilm["minilm"], minilm["minilm-tokenizer"])
    backend = await start_minilm()
    usage = (await backend.embed(EmbedInput(TEXTS), context())).usage
    assert usage.prompt_tokens == sum(len(encoder.encode(text).ids) for text in TEXTS)
    assert usage.output_tokens == 0


async def test_near_texts_lie_near(start_minilm: Start, context: Context) -> None:
    backend = await start_minilm()
    texts = ("My head hurts badly.", "I have a strong headache.", "The invoice is due in March.")
    near, same, far = to_array((await backend.embed(EmbedInput(texts), context())).vectors)
    assert near @ same > near @ far + 0.3


async def test_no_texts_give_no_vectors_of_the_models_length(start_minilm: Start, context: Context) -> None:
    backend = await start_minilm()
    assert backend.capabilities.tasks == {Task.EMBED}
    embeddings = await backend.embed(EmbedInput(()), context())
    assert embeddings.vectors.shape == (0, 384)
    assert embeddings.usage.prompt_tokens == 0


@pytest.mark.parametrize(("settings", "limit"), [({"max_tokens": 20}, 20), ({}, 128)], ids=["set", "the tokenizer's"])
async def test_a_text_beyond_the_limit_is_refused_and_not_cut(
    start_minilm: Start, context: Context, settings: dict[str, Any], limit: int
) -> None:
    backend = await start_minilm(**settings)
    fits, beyond = "secret " * (limit - 2), "secret " * (limit - 1)
    assert (await backend.embed(EmbedInput((fits,)), context())).vectors.shape == (1, 384)
    with pytest.raises(AttemptError) as refused:
        await backend.embed(EmbedInput(("a", fits, beyond)), context())
    assert refused.value.kind is FailureKind.CONTEXT_LENGTH
    assert f"text 2 has {limit + 1} tokens, and {limit} are the most" in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_limit_that_the_model_does_not_have_is_found_at_the_start(start_minilm: Start) -> None:
    with pytest.raises(AttemptError, match="does not take 4096 tokens; lower `max_tokens`") as refused:
        await start_minilm(max_tokens=4096)
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE


async def test_a_tokenizers_limit_without_meaning_is_none(
    start: Start, context: Context, minilm: dict[str, str], tmp_path: Path
) -> None:
    encoder = tokenizers.Tokenizer.from_file(located(minilm["minilm-tokenizer"]))
    encoder.enable_truncation(10**9)
    encoder.save(str(tmp_path / "endless.json"))
    sources = {"minilm": minilm["minilm"], "endless": tmp_path / "endless.json"}
    backend = await start(sources, task="embed", model="minilm", tokenizer="endless")
    with pytest.raises(AttemptError, match="and 256 are the most"):
        await backend.embed(EmbedInput(("word " * 300,)), context())


async def test_a_lone_surrogate_is_no_text(start_minilm: Start, context: Context) -> None:
    backend = await start_minilm()
    with pytest.raises(AttemptError, match="a text is not valid Unicode") as refused:
        await backend.embed(EmbedInput(("fine", "secret\ud800")), context())
    assert refused.value.kind is FailureKind.INVALID_REQUEST
    assert "secret" not in str(refused.value)


async def test_an_embed_backend_does_not_infer(start_minilm: Start, context: Context) -> None:
    backend = await start_minilm()
    with pytest.raises(AttemptError) as refused:
        await backend.infer(InferInput("minilm", {}), context())
    assert refused.value.kind is FailureKind.UNSUPPORTED


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A tokenizer that knows the words a, b and c, and says nothing of padding, limits or special tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "a": 1, "b": 2, "c": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "letters.json"
    tokenizer.save(str(path))
    return path


async def test_a_model_that_pools_by_itself_and_wants_ids_only(
    start: Start, context: Context, build: Callable[..., Path], letters: Path
) -> None:
    path = build(
        "summing",
        [
            helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
            helper.make_node("ReduceMax", ["tokens"], ["text"], axes=[1], keepdims=0),
        ],
        [("input_ids", TensorProto.INT32, ["batch", "sequence"])],
        [("tokens", TensorProto.FLOAT, None), ("text", TensorProto.FLOAT, None)],
        {"table": numpy.array([[0, 0], [3, 0], [0, 4], [1, 1]], dtype=numpy.float32)},
    )
    sources = {"summing": path, "letters": letters}
    backend = await start(sources, task="embed", model="summing", tokenizer="letters", pooling="none", normalize=False)
    answer: Embeddings = await backend.embed(EmbedInput(("a b", "c", "", "b")), context())
    assert to_array(answer.vectors).tolist() == [[3, 4], [1, 1], [0, 0], [0, 4]]
    assert answer.usage.prompt_tokens == 4


async def test_models_that_do_not_embed_are_told_what_they_lack(
    start: Start, build: Callable[..., Path], letters: Path, doubling: Path
) -> None:
    ids = build(
        "fixed",
        [helper.make_node("Gather", ["table", "input_ids"], ["tokens"])],
        [("input_ids", TensorProto.INT64, [1, 16])],
        [("tokens", TensorProto.FLOAT, None)],
        {"table": numpy.ones((4, 2), dtype=numpy.float32)},
    )
    flat = build(
        "flat",
        [helper.make_node("Gather", ["table", "input_ids"], ["tokens"])],
        [("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [("tokens", TensorProto.FLOAT, ["batch", "sequence"])],
        {"table": numpy.ones(4, dtype=numpy.float32)},
    )
    for path, says in [
        (doubling, "texts give a model input_ids, attention_mask, token_type_ids, position_ids, and it wants x"),
        (ids, "its inputs have a fixed size"),
        (flat, "none of its outputs has one vector a token, see `pooling`; they are tokens"),
    ]:
        with pytest.raises(AttemptError) as refused:
            await start({"m": path, "letters": letters}, task="embed", model="m", tokenizer="letters")
        assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE
        assert says in str(refused.value)


async def test_a_tokenizer_that_is_none_is_told(start: Start, minilm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    sources = {"minilm": minilm["minilm"], "broken": tmp_path / "tokenizer.json"}
    with pytest.raises(
        AttemptError, match=r"model 'broken' cannot be used: its tokenizer\.json is missing or is none"
    ) as refused:
        await start(sources, task="embed", model="minilm", tokenizer="broken")
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE
