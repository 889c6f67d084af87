"""What the backends of ONNX Runtime have in common, whatever they compute."""

from __future__ import annotations

from collections.abc import Callable

from ..models import ModelFile
from ..process.frames import JsonObject
from ..process.worker_backend import WorkerBackend
from ..process.worker_process import WorkerProcess
from .runtime import without_cpu
from .settings import OnnxSettings

_LOADING, _COMPILING = 600.0, 3600.0
"""Seconds of processor time; an accelerator's compiler may take most of an hour."""


class OnnxWorkerBackend(WorkerBackend):
    """An engine of ONNX Runtime's in a worker process that comes back after a crash."""

    def __init__(
        self, name: str, settings: OnnxSettings, engine: str, engine_settings: Callable[[], JsonObject]
    ) -> None:
        worker = WorkerProcess(
            name,
            engine,
            engine_settings,
            memory_limit=settings.memory_limit,
            idle_unload=settings.idle_unload,
            loading_seconds=_COMPILING if without_cpu(settings.providers) else _LOADING,
        )
        super().__init__(name, worker)


def model_fields(model: ModelFile) -> JsonObject:
    """What an engine is told of a model: its ``path``, and the files beside it that are ``proven``, or None.

    Reads all its files, to prove them. Raises `ModelUnavailable`.
    """
    return {"path": str(model.verify().absolute()), "proven": model.proven_beside()}
