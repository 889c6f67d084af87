"""ONNX Runtime in a supervised worker process: `embed`, `classify`, `infer`, and `generate` by onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Mapping

from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import OnnxSettings, OnnxTask, check

__all__ = ["KIND", "OnnxSettings"]


def _build(name: str, settings: OnnxSettings, models: Mapping[str, ModelFile]) -> Backend:
    # Later than reading a configuration, which needs no event loop and no processes.
    if settings.task is OnnxTask.GENERATE:
        from .generate_backend import OnnxGenerateBackend

        return OnnxGenerateBackend(name, settings, models)
    from .backend import OnnxBackend

    return OnnxBackend(name, settings, models)


KIND = BackendKind("onnx", OnnxSettings, on_device=True, build=_build, check=check)
