"""What every engine of ONNX Runtime's does in its worker before the library is imported, and where it computes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import psutil

from ...core.failure import AttemptError, FailureKind

CPU = "CPUExecutionProvider"

WAITING: Mapping[str, str] = {"session.intra_op.spin_duration_us": "20", "session.force_spinning_stop": "1"}
"""How the engine's threads wait for the next step of a run, and for the next run, as entries of its session options.

ONNX Runtime's own way, to spin for some 60 ms, also after the run, takes the processor from the application;
not to spin at all takes up to a fifth longer for a network of many small steps. To spin shortly, and not after the run,
is as fast on an idle machine, and takes hardly more processor time than not to spin. The first is heeded from 1.26 on.
"""


def prepare(threads: int | None) -> None:
    """Set what the libraries read from the environment while they are imported."""
    if threads is not None:
        # The tokenizer's own pool.
        os.environ["RAYON_NUM_THREADS"] = str(threads)
    # Else telemetry begins with the import, before a call could turn it off: a session file, an uploader.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def missing(error: ImportError, extra: str) -> AttemptError:
    """MODEL_UNAVAILABLE for a library that is not there, with the extra that brings it."""
    sentence = (
        f'the Python package {error.name or extra!r} is missing or does not run here; pip install "edgewise[{extra}]"'
    )
    return AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)


def physical_cores() -> int:
    """The cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def without_cpu(providers: Sequence[str]) -> list[str]:
    """The providers that are preferred to the CPU, which is always the last."""
    return [provider for provider in providers if provider != CPU]


def fallback(wanted: Sequence[str], used: Iterable[str]) -> str:
    """What to tell people of providers that were asked for and do not compute; empty where all do."""
    lost = [provider for provider in without_cpu(wanted) if provider not in used]
    if not lost:
        return ""
    return f"{' and '.join(lost)} cannot be used here, so that it computes on the CPU instead"
