"""What an ONNX model's files must be before native code opens them. Runs in the worker."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..process.memory import free_memory
from .external_data import proven_data
from .functions import require_bounded
from .unavailable import unavailable


def admit(model: str, path: Path, proven: Collection[str] | None) -> None:
    """Raise MODEL_UNAVAILABLE for a file that is none, reads what it should not, has no bounds, or does not fit.

    ``proven`` are the files beside it that the model's sum proves; None: nothing is asked for.
    """
    files = [path]
    if path.suffix != ".ort":  # ONNX Runtime's own format, which has neither external data nor functions
        files += proven_data(model, path, proven)
        require_bounded(model, path)
    size = sum(file.stat().st_size for file in files)
    if size > (free := free_memory()):
        why = f"it has {size >> 20} MiB, and {free >> 20} MiB of memory are free; use a smaller one"
        raise unavailable(model, why)
