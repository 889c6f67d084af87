"""GGUF models on this device by llama.cpp, in a worker process."""

from __future__ import annotations

from collections.abc import Mapping

from ..backend import Backend
from ..models import ModelFile
from ..registry import BackendKind
from .settings import LlamaCppSettings, check_settings

__all__ = ["KIND", "LlamaCppSettings"]


def _build(name: str, settings: LlamaCppSettings, models: Mapping[str, ModelFile]) -> Backend:
    # Later than reading a configuration, which needs no event loop and no processes.
    from .backend import LlamaCppBackend

    return LlamaCppBackend(name, settings, models[settings.model])


KIND = BackendKind(name="llama_cpp", settings=LlamaCppSettings, on_device=True, build=_build, check=check_settings)
