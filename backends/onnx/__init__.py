"""ONNX Runtime in a supervised worker process: `embed` and `infer`."""

from __future__ import annotations

from collections.abc import Mapping

from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import OnnxSettings, check

__all__ = ["KIND", "OnnxSettings"]


def _build(name: str, settings: OnnxSettings, models: Mapping[str, ModelFile]) -> Backend:
    from .backend import OnnxBackend

    return OnnxBackend(name, settings, models)


KIND = BackendKind("onnx", OnnxSettings, on_device=True, build=_build, check=check)
