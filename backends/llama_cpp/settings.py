"""What a configuration says of a llama.cpp backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from ...core.problem import Problem
from ...core.settings import ByteSize, ModelName, Seconds

_MOST = (1 << 31) - 1
_BOUNDS = (
    ("context_tokens", 16, _MOST),
    ("batch_tokens", 1, _MOST),
    ("gpu_layers", -1, _MOST),
    ("top_k", 0, _MOST),
    ("threads", 1, 512),
    ("memory_limit", 1, 1 << 50),
    ("idle_unload", 1, 1 << 30),
)


class LlamaCppTask(StrEnum):
    """What a model is loaded for."""

    GENERATE = "generate"
    EMBED = "embed"


class LlamaCppPooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MODEL = "model"
    """As the model file says; the mean where it says nothing."""
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class LlamaCppSettings:
    """One GGUF model, loaded once, answering one request at a time."""

    model: Annotated[ModelName, "the GGUF model to load, by its name under `models:`"]
    task: Annotated[LlamaCppTask, "what to load it for"] = LlamaCppTask.GENERATE
    context_tokens: Annotated[int, "how many tokens prompt and answer may have together"] = 2048
    threads: Annotated[int | None, "processor threads; without it, the physical cores this process may use"] = None
    gpu_layers: Annotated[int, "how many layers run on the GPU; -1 is all of them"] = 0
    batch_tokens: Annotated[int, "how many tokens of a prompt are read at once; more is faster and takes memory"] = 512
    top_k: Annotated[int, "sampling looks at this many likeliest tokens; 0 looks at all"] = 40
    mmap: Annotated[bool, "map the file into memory instead of reading it"] = True
    mlock: Annotated[bool, "keep the model in memory, never swapped out"] = False
    use_extra_buffers: Annotated[
        bool, "repack weights for this processor's matrix units; turned off by itself after a native crash"
    ] = True
    pooling: Annotated[LlamaCppPooling, "`embed` only: how a text's token vectors become one; `model` is its own"] = (
        LlamaCppPooling.MODEL
    )
    normalize: Annotated[bool, "`embed` only: make every vector one long"] = True
    idle_unload: Annotated[
        Seconds | None, "give the memory back when nothing was asked for this long; the next request waits for a load"
    ] = None
    memory_limit: Annotated[
        ByteSize | None, "end the worker when it holds more memory of its own than this; a mapped file does not count"
    ] = None


def check_settings(settings: LlamaCppSettings) -> Sequence[Problem]:
    """Numbers that llama.cpp cannot work with."""
    return [
        Problem(f"{name} is {value}", f"give {name} at least {least}, and at most {most}", (name,))
        for name, least, most in _BOUNDS
        if (value := getattr(settings, name)) is not None and not least <= value <= most
    ]
