"""Texts to labels, against ONNX Runtime and tokenizers called directly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import tokenizers

from edgewise.backends import Backend, CallContext
from edgewise.backends.onnx.settings import Scores
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Classification
from edgewise.core.content import ClassifyInput, EmbedInput
from edgewise.core.failure import AttemptError, FailureKind

from ._tiny_classifier import LABELS, write_classifier

Start = Callable[..., Awaitable[Backend]]
Context = Callable[[], CallContext]
StartMood = Callable[..., Awaitable[Backend]]

TEXTS = ("good good", "what a bad day", "", "good but dull", "bad dull bad", *(["good"] * 9))


@pytest.fixture
def start_mood(start: Start, tmp_path: Path) -> StartMood:
    async def start_mood(**settings: Any) -> Backend:
        model, words = write_classifier(tmp_path)
        whole = {"labels": LABELS, **settings}
        return await start({"mood": model, "words": words}, task="classify", model="mood", tokenizer="words", **whole)

    return start_mood


def logits(folder: Path) -> Any:
    """The model's own numbers, one text after the other."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "words.json"))
    session = onnxruntime.InferenceSession(str(folder / "mood.onnx"), providers=["CPUExecutionProvider"])
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids or [0]
        mask = [1] * len(ids) if text else [0]
        feeds = {"input_ids": numpy.array([ids]), "attention_mask": numpy.array([mask])}
        rows.append(session.run(None, feeds)[0][0])
    return numpy.array(rows)


def softmax(numbers: Any) -> Any:
    return numpy.exp(numbers) / numpy.exp(numbers).sum(axis=1, keepdims=True)


def sigmoid(numbers: Any) -> Any:
    return 1 / (1 + numpy.exp(-numbers))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(Scores.SOFTMAX, softmax), (Scores.SIGMOID, sigmoid), (Scores.NONE, lambda numbers: numbers)],
)
async def test_scores_are_those_of_the_library_in_the_order_of_the_texts(
    start_mood: StartMood, context: Context, tmp_path: Path, scores: Scores, expected: Callable[[Any], Any]
) -> None:
    backend = await start_mood(scores=scores)
    answer: Classification = await backend.classify(ClassifyInput(TEXTS), context())
    assert answer.labels == LABELS
    assert numpy.abs(to_array(answer.scores) - expected(logits(tmp_path))).max() < 1e-5
    assert (answer.model, answer.place) == ("mood", "device")
    assert answer.usage.prompt_tokens == sum(len(text.split()) for text in TEXTS)


async def test_as_many_labels_as_the_model_has_outputs(start_mood: StartMood) -> None:
    with pytest.raises(AttemptError, match="it tells 3 classes apart, and `labels` has 2 names") as refused:
        await start_mood(labels=("a", "b"))
    assert refused.value.kind is FailureKind.MODEL_UNAVAILABLE


async def test_a_text_beyond_the_limit_is_refused_and_not_cut(start_mood: StartMood, context: Context) -> None:
    backend = await start_mood(max_tokens=3)
    with pytest.raises(AttemptError, match="text 1 has 4 tokens, and 3 are the most") as refused:
        await backend.classify(ClassifyInput(("bad", "bad " * 4)), context())
    assert refused.value.kind is FailureKind.CONTEXT_LENGTH


async def test_what_is_no_number_is_no_score(start_mood: StartMood, context: Context) -> None:
    backend = await start_mood()
    with pytest.raises(AttemptError, match="what is no number") as refused:
        await backend.classify(ClassifyInput(("good", "undefined")), context())
    assert refused.value.kind is FailureKind.INTERNAL
    assert (await backend.classify(ClassifyInput(("good",)), context())).scores.shape == (1, 3)


async def test_it_does_not_embed(start_mood: StartMood, context: Context) -> None:
    with pytest.raises(AttemptError) as refused:
        await (await start_mood()).embed(EmbedInput(("a",)), context())
    assert refused.value.kind is FailureKind.UNSUPPORTED
