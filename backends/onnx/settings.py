"""What a configuration says of an ONNX backend, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from ...core.problem import Problem
from ...core.settings import ModelName


class OnnxTask(StrEnum):
    """What an ONNX backend is for."""

    EMBED = "embed"
    INFER = "infer"


class Pooling(StrEnum):
    """How a text's token vectors become one."""

    MEAN = "mean"
    """Their mean."""
    CLS = "cls"
    """The first one."""
    NONE = "none"
    """The model does it: an output has one vector a text already."""


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

    task: Annotated[OnnxTask, "`embed` (texts to vectors) or `infer` (named tensors in, named tensors out)"]
    model: Annotated[
        ModelName | None, "the model, an ONNX file; for `infer`, requests name it by its name under `models:`"
    ] = None
    models: Annotated[
        Mapping[str, ModelName], "`infer` only, instead of `model`: several models, each under the name requests use"
    ] = field(default_factory=dict)
    tokenizer: Annotated[ModelName | None, "`embed` only: the model's tokenizer.json, an entry of `models:`"] = None
    pooling: Annotated[Pooling, "`embed` only: `mean`, `cls`, or `none` where the model pools by itself"] = Pooling.MEAN
    normalize: Annotated[bool, "`embed` only: scale every vector to length 1"] = True
    max_tokens: Annotated[
        int | None, "`embed` only: the longest text in tokens; by default the tokenizer's own limit, or else 256"
    ] = None
    threads: Annotated[int | None, "processor threads; by default one for each physical core"] = None
    providers: Annotated[
        tuple[str, ...], "ONNX Runtime's execution providers in order of preference; the CPU is always the last"
    ] = ("CPUExecutionProvider",)

    @property
    def served(self) -> Mapping[str, ModelName]:
        """The models by the names that requests use."""
        return self.models if self.model is None else {self.model: self.model}


def check(settings: OnnxSettings) -> list[Problem]:
    """What is wrong with the settings taken together."""
    task_problems = _check_embed if settings.task is OnnxTask.EMBED else _check_infer
    return [*task_problems(settings), *_check_resources(settings)]


def _check_embed(settings: OnnxSettings) -> list[Problem]:
    problems = []
    if settings.model is None:
        problems.append(Problem("an `embed` backend has no model", "add `model:`, the name of an entry of `models:`"))
    if settings.models:
        problems.append(Problem("`models` is for `infer` only", "name the one model under `model:`", ("models",)))
    if settings.tokenizer is None:
        mend = "add `tokenizer:`, the name of the `models:` entry of the model's tokenizer.json"
        problems.append(Problem("an `embed` backend has no tokenizer", mend))
    if settings.max_tokens is not None and settings.max_tokens < 1:
        problems.append(Problem("`max_tokens` is below 1", "write how many tokens a text may have", ("max_tokens",)))
    return problems


def _check_infer(settings: OnnxSettings) -> list[Problem]:
    problems = []
    if (settings.model is None) == (not settings.models):
        sentence = "an `infer` backend has " + ("both `model` and `models`" if settings.models else "no model")
        problems.append(Problem(sentence, "write `model:` for one model, `models: {name: model}` for several"))
    if settings.tokenizer is not None:
        mend = "leave it out: requests bring the model's own tensors"
        problems.append(Problem("an `infer` backend takes no tokenizer", mend, ("tokenizer",)))
    return problems


def _check_resources(settings: OnnxSettings) -> list[Problem]:
    problems = []
    if settings.threads is not None and settings.threads < 1:
        problems.append(Problem("`threads` is below 1", "write how many threads, or leave it out", ("threads",)))
    for index, provider in enumerate(settings.providers):
        if provider not in ON_DEVICE_PROVIDERS:
            sentence = f"{provider!r} is no execution provider that computes on this device"
            mend = f"use one of {', '.join(sorted(ON_DEVICE_PROVIDERS))}"
            problems.append(Problem(sentence, mend, ("providers", index)))
    return problems
