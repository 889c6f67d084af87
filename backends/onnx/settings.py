"""What a configuration says of an ONNX backend, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated

from ...core.problem import Problem
from ...core.settings import ByteSize, ModelName, Seconds


class OnnxTask(StrEnum):
    """What an ONNX backend is for."""

    EMBED = "embed"
    CLASSIFY = "classify"
    INFER = "infer"
    GENERATE = "generate"


class Pooling(StrEnum):
    """How a text's token vectors become one."""

    MEAN = "mean"
    """Their mean."""
    CLS = "cls"
    """The first one."""
    NONE = "none"
    """The model does it: an output has one vector a text already."""


class Scores(StrEnum):
    """How a classifier's outputs become scores."""

    SOFTMAX = "softmax"
    """One label holds: the scores of a text sum to 1."""
    SIGMOID = "sigmoid"
    """Each label holds or not, for itself."""
    NONE = "none"
    """The model does it: its outputs are scores already."""


ON_DEVICE_PROVIDERS = frozenset(
    f"{name}ExecutionProvider"
    for name in (
        *(
            "ACL",
            "CANN",
            "CPU",
            "CUDA",
            "CoreML",
            "Dml",
            "Dnnl",
            "MIGraphX",
            "Nnapi",
            "NvTensorRTRTX",
            "OpenVINO",
            "QNN",
        ),
        *("ROCM", "Rknpu", "Tensorrt", "VSINPU", "VitisAI", "WebGpu", "Xnnpack"),
    )
)
"""The execution providers that compute on this device. ONNX Runtime has one more, Azure, that sends tensors away."""


@dataclass(frozen=True, slots=True)
class OnnxSettings:
    """An entry of the ``backends:`` section with ``kind: onnx``."""

    task: Annotated[
        OnnxTask,
        "`embed` (texts to vectors), `classify` (texts to labels), `infer` (named tensors in, named tensors out) or "
        "`generate` (a folder made by onnxruntime-genai's model builder)",
    ]
    model: Annotated[
        ModelName | None,
        "the model, an ONNX file; for `infer`, requests name it by its name under `models:`; for `generate`, what the "
        "model builder wrote beside it stays there",
    ] = None
    models: Annotated[
        Mapping[str, ModelName], "`infer` only, instead of `model`: several models, each under the name requests use"
    ] = field(default_factory=dict)
    tokenizer: Annotated[
        ModelName | None, "the model's tokenizer.json, an entry of `models:`; `generate` finds it beside the model"
    ] = None
    pooling: Annotated[Pooling, "`embed` only: `mean`, `cls`, or `none` where the model pools by itself"] = Pooling.MEAN
    normalize: Annotated[bool, "`embed` only: scale every vector to length 1"] = True
    max_tokens: Annotated[
        int | None,
        "`embed` and `classify`: the longest text in tokens; by default the tokenizer's own limit, or else 256",
    ] = None
    labels: Annotated[tuple[str, ...], "`classify` only: what the model's outputs stand for, in their order"] = ()
    scores: Annotated[
        Scores,
        "`classify` only: `softmax` where one label holds, `sigmoid` where several may, `none` for the model's own",
    ] = Scores.SOFTMAX
    context_tokens: Annotated[int, "`generate` only: how many tokens prompt and answer may have together"] = 2048
    top_k: Annotated[int, "`generate` only: sampling looks at this many likeliest tokens"] = 40
    batch_wait: Annotated[
        Seconds | None,
        "`infer` only: how long a request waits for others to be run together with it; absent: each runs alone. For "
        "models whose rows do not depend on one another",
    ] = None
    max_batch: Annotated[int, "`infer` only: how many rows run together at most, where `batch_wait` is set"] = 8
    threads: Annotated[int | None, "processor threads; by default one for each physical core"] = None
    providers: Annotated[
        tuple[str, ...], "ONNX Runtime's execution providers in order of preference; the CPU is always the last"
    ] = ("CPUExecutionProvider",)
    idle_unload: Annotated[
        Seconds | None, "give the memory back when nothing was asked for this long; the next request waits for a load"
    ] = None
    memory_limit: Annotated[
        ByteSize | None, "end the worker when it holds more memory of its own than this; a mapped file does not count"
    ] = None

    @property
    def served(self) -> Mapping[str, ModelName]:
        """The models by the names that requests use."""
        return self.models if self.model is None else {self.model: self.model}


_ONLY_FOR = {
    "models": (OnnxTask.INFER,),
    "tokenizer": (OnnxTask.EMBED, OnnxTask.CLASSIFY, OnnxTask.GENERATE),
    "pooling": (OnnxTask.EMBED,),
    "normalize": (OnnxTask.EMBED,),
    "max_tokens": (OnnxTask.EMBED, OnnxTask.CLASSIFY),
    "labels": (OnnxTask.CLASSIFY,),
    "scores": (OnnxTask.CLASSIFY,),
    "context_tokens": (OnnxTask.GENERATE,),
    "top_k": (OnnxTask.GENERATE,),
    "batch_wait": (OnnxTask.INFER,),
    "max_batch": (OnnxTask.INFER,),
}
"""The tasks that a setting means something for; those that are not here mean something for all."""

_LEAST = {
    "max_tokens": 1,
    "context_tokens": 16,
    "top_k": 1,
    "max_batch": 2,
    "threads": 1,
    "idle_unload": 1,
    "memory_limit": 1,
}


def check(settings: OnnxSettings) -> list[Problem]:
    """What is wrong with the settings taken together."""
    return [
        *_without_meaning(settings),
        *_missing(settings),
        *_too_small(settings),
        *_labels(settings),
        *_providers(settings),
    ]


def _without_meaning(settings: OnnxSettings) -> list[Problem]:
    task = settings.task
    unset = OnnxSettings(task)
    return [
        Problem(
            f"`{each.name}` means nothing for `{task}`",
            f"leave it out; it is for {' and '.join(f'`{other}`' for other in _ONLY_FOR[each.name])}",
            (each.name,),
        )
        for each in fields(settings)
        if task not in _ONLY_FOR.get(each.name, (task,)) and getattr(settings, each.name) != getattr(unset, each.name)
    ]


def _missing(settings: OnnxSettings) -> list[Problem]:
    task, problems = settings.task, []
    article = "a" if task in (OnnxTask.CLASSIFY, OnnxTask.GENERATE) else "an"
    if task is OnnxTask.INFER:
        if (settings.model is None) == (not settings.models):
            sentence = "an `infer` backend has " + ("both `model` and `models`" if settings.models else "no model")
            problems.append(Problem(sentence, "write `model:` for one model, `models: {name: model}` for several"))
    elif settings.model is None:
        mend = "add `model:`, the name of an entry of `models:`"
        problems.append(Problem(f"{article} `{task}` backend has no model", mend))
    if settings.tokenizer is None and task in (OnnxTask.EMBED, OnnxTask.CLASSIFY):
        mend = "add `tokenizer:`, the name of the `models:` entry of the model's tokenizer.json"
        problems.append(Problem(f"{article} `{task}` backend has no tokenizer", mend))
    return problems


def _too_small(settings: OnnxSettings) -> list[Problem]:
    return [
        Problem(f"`{name}` is below {least}", f"write {least} or more", (name,))
        for name, least in _LEAST.items()
        if (value := getattr(settings, name)) is not None and value < least
    ]


def _labels(settings: OnnxSettings) -> list[Problem]:
    if settings.task is not OnnxTask.CLASSIFY:
        return []
    path = ("labels",)
    if not settings.labels:
        mend = "add `labels:`, a name for each of the model's outputs in their order (its `id2label`)"
        return [Problem("a `classify` backend has no labels", mend)]
    if len(set(settings.labels)) < len(settings.labels) or "" in settings.labels:
        return [Problem("a label is empty or comes twice", "give each output a name of its own", path)]
    return []


def _providers(settings: OnnxSettings) -> list[Problem]:
    return [
        Problem(
            f"{provider!r} is no execution provider that computes on this device",
            f"use one of {', '.join(sorted(ON_DEVICE_PROVIDERS))}",
            ("providers", index),
        )
        for index, provider in enumerate(settings.providers)
        if provider not in ON_DEVICE_PROVIDERS
    ]
