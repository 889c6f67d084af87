"""What is wrong with an ONNX backend's settings is found before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from edgewise.backends.onnx import KIND, OnnxSettings
from edgewise.backends.onnx.settings import OnnxTask, Pooling

EMBED = {"task": OnnxTask.EMBED, "model": "m", "tokenizer": "t"}
INFER = {"task": OnnxTask.INFER, "model": "m"}
CLASSIFY = {"task": OnnxTask.CLASSIFY, "model": "m", "tokenizer": "t", "labels": ("a", "b")}
GENERATE = {"task": OnnxTask.GENERATE, "model": "m"}


def problems(settings: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    found = KIND.check(OnnxSettings(**settings))
    assert all(problem.mend for problem in found)
    return [(problem.path, problem.sentence) for problem in found]


@pytest.mark.parametrize(
    "settings",
    [
        EMBED,
        INFER,
        CLASSIFY,
        GENERATE,
        {"task": OnnxTask.INFER, "models": {"a": "m", "b": "n"}},
        {**EMBED, "threads": 4, "max_tokens": 512, "providers": ("CUDAExecutionProvider", "CPUExecutionProvider")},
    ],
)
def test_sound_settings_have_no_problems(settings: dict[str, Any]) -> None:
    assert not problems(settings)


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"task": OnnxTask.EMBED, "tokenizer": "t"}, (), "has no model"),
        ({"task": OnnxTask.EMBED, "model": "m"}, (), "has no tokenizer"),
        ({**EMBED, "models": {"a": "m"}}, ("models",), "`models` means nothing for `embed`"),
        ({**EMBED, "max_tokens": 0}, ("max_tokens",), "below 1"),
        ({"task": OnnxTask.INFER}, (), "has no model"),
        ({**INFER, "models": {"a": "m"}}, (), "both `model` and `models`"),
        ({**INFER, "tokenizer": "t"}, ("tokenizer",), "`tokenizer` means nothing for `infer`"),
        ({**INFER, "pooling": Pooling.CLS}, ("pooling",), "`pooling` means nothing for `infer`"),
        ({**INFER, "max_batch": 1}, ("max_batch",), "below 2"),
        ({**INFER, "memory_limit": 0}, ("memory_limit",), "below 1"),
        ({**GENERATE, "model": None}, (), "a `generate` backend has no model"),
        ({**GENERATE, "context_tokens": 1}, ("context_tokens",), "below 16"),
        ({**GENERATE, "max_tokens": 7}, ("max_tokens",), "`max_tokens` means nothing for `generate`"),
        ({**CLASSIFY, "tokenizer": None}, (), "has no tokenizer"),
        ({**CLASSIFY, "labels": ()}, (), "has no labels"),
        ({**CLASSIFY, "labels": ("a", "a")}, ("labels",), "comes twice"),
        ({**INFER, "threads": 0}, ("threads",), "below 1"),
        ({**INFER, "providers": ("CPUExecutionProvider", "GPU")}, ("providers", 1), "'GPU' is no execution provider"),
    ],
)
def test_a_mistake_is_told_at_its_place(settings: dict[str, Any], path: tuple[str | int, ...], says: str) -> None:
    ((found_path, sentence),) = problems(settings)
    assert found_path == path
    assert says in sentence


def test_a_provider_that_sends_tensors_away_is_refused() -> None:
    ((path, sentence),) = problems({**INFER, "providers": ("AzureExecutionProvider",)})
    assert path == ("providers", 0)
    assert "no execution provider that computes on this device" in sentence


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems({"task": OnnxTask.EMBED, "threads": -1, "providers": ("X",)})) == 4
