"""One model opened by ONNX Runtime. Runs in the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

from ...core.failure import AttemptError, FailureKind
from ..process.engine import RunningCall
from ..process.frames import JsonObject
from .admission import admit
from .domains import foreign_domains
from .runtime import CPU, WAITING, fallback, physical_cores, without_cpu
from .scalars import scalars
from .signature import Port
from .unavailable import unavailable

Array = numpy.ndarray[Any, numpy.dtype[Any]]

_KEPT = 64 << 20
_SILENT = 4  # Even its errors stay unwritten: they quote values.

# ONNX Runtime has exception classes without a common base below Exception, made by its native module.
_native = onnxruntime.capi.onnxruntime_pybind11_state

_NO_MODEL = "its file is no ONNX model, or is cut short; get it again"
_WHY_NOT_LOADED: Mapping[type[Exception], str] = {
    _native.NoSuchFile: "its file is gone",
    _native.InvalidProtobuf: _NO_MODEL,
    _native.InvalidArgument: _NO_MODEL,
    _native.NoModel: _NO_MODEL,
    _native.InvalidGraph: "it is damaged, or uses operators that this ONNX Runtime does not have; a newer one may",
    _native.NotImplemented: "it uses operators that this ONNX Runtime does not have; a newer one may",
    _native.Fail: (
        "it is damaged, or needs a newer ONNX Runtime, or external data that does not lie in the model's own folder; "
        "get it again, upgrade onnxruntime, or put the data file beside the model"
    ),
}


_REFUSED = _native.InvalidArgument
_FAILED_ON_CPU = (_native.InvalidArgument, _native.Fail, _native.RuntimeException)
"""An operator on the CPU is a function: what it fails over are the values. Another processor may fail by itself."""


class Session:
    """A loaded model: its inputs, its outputs, and `run`."""

    def __init__(self, model: str, files: JsonObject, *, threads: int | None, providers: Sequence[str]) -> None:
        """``files`` is what `model_fields` says of them."""
        self._model = model
        admit(model, Path(files["path"]), files["proven"])
        self._session = _open(model, files["path"], threads or physical_cores(), providers)
        self._scalars = scalars(model, Path(files["path"]))
        self.inputs = self._dense(self._session.get_inputs(), required=True)
        self.outputs = self._dense(self._session.get_outputs(), required=False)
        if not self.outputs:
            raise unavailable(model, "none of its outputs is a dense tensor (export a classifier without ZipMap)")
        self._on_cpu = self._session.get_providers() == [CPU]
        self.fallback = fallback(providers, self._session.get_providers())
        """What to tell people where it computes on the CPU instead of what was asked for; else empty."""

    @property
    def has_rows(self) -> bool:
        """Whether every input and every output has a first axis of any extent."""
        return all(port.has_rows for port in (*self.inputs, *self.outputs))

    def run(
        self, feeds: Mapping[str, Array], options: onnxruntime.RunOptions, *, outputs: Sequence[Port]
    ) -> list[Array]:
        """The outputs named, in that order.

        Raises PREEMPTED when ``options`` end the run, INVALID_REQUEST where the values are what it fails over, else
        INTERNAL.
        """
        try:
            results = self._session.run([port.name for port in outputs], dict(feeds), options)
        except Exception as error:  # noqa: BLE001  # native exceptions have no common base, and their texts quote values
            raise self._run_failure(error, options) from None
        return [numpy.asarray(result) for result in results]

    def run_whole(self, feeds: Mapping[str, Array], running: RunningCall) -> dict[str, Array]:
        """All outputs by their names; cancelling the call ends the run. Raises what `run` raises."""
        arrays = self.run(feeds, options_for(running), outputs=self.outputs)
        return {port.name: array for port, array in zip(self.outputs, arrays, strict=True)}

    def _run_failure(self, error: Exception, options: onnxruntime.RunOptions) -> AttemptError:
        if options.terminate:
            return AttemptError(FailureKind.PREEMPTED, f"the run of model {self._model!r} was cancelled")
        if isinstance(error, _FAILED_ON_CPU if self._on_cpu else _REFUSED):
            sentence = (
                f"model {self._model!r} cannot take these values (an index out of range, shapes that differ, or more "
                f"memory than there is; {type(error).__name__})"
            )
            return AttemptError(FailureKind.INVALID_REQUEST, sentence)
        sentence = f"model {self._model!r} failed in one of its operators ({type(error).__name__})"
        return AttemptError(FailureKind.INTERNAL, sentence)

    def _dense(self, arguments: Sequence[Any], *, required: bool) -> tuple[Port, ...]:  # ONNX Runtime ships no types
        ports = []
        for argument in arguments:
            port = Port.of(argument, self._scalars)
            if port is not None:
                ports.append(port)
            elif required:
                why = f"its input {argument.name!r} is {argument.type}, which no request can bring"
                raise unavailable(self._model, why)
        return tuple(ports)


def options_for(running: RunningCall | None) -> onnxruntime.RunOptions:
    """Options for all runs of one call: cancelling the call ends the run, and those that would follow."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _SILENT
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    if running is not None:
        running.when_cancelled(lambda: setattr(options, "terminate", True))
    return options


@cache
def _share_memory() -> None:
    """One arena for all sessions, which keeps its first piece and gives the rest back after each run.

    Each session's own keeps the largest batch for ever: 850 MB instead of 220 for MiniLM. With none, the pages of every
    run are new: a fifth of the time of a network with 32 MiB between its layers.
    """
    arena = onnxruntime.OrtArenaCfg(
        {"max_mem": 0, "arena_extend_strategy": 0, "initial_chunk_size_bytes": _KEPT, "max_dead_bytes_per_chunk": -1}
    )
    kind = (onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", *kind), arena)


def _open(model: str, path: str, threads: int, providers: Sequence[str]) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(_SILENT)
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    for entry in WAITING.items():
        options.add_session_config_entry(*entry)
    available = onnxruntime.get_available_providers()
    chosen = [provider for provider in without_cpu(providers) if provider in available]
    try:
        return onnxruntime.InferenceSession(path, options, providers=[*chosen, CPU])
    except Exception as error:  # noqa: BLE001  # native exceptions have no common base
        raise unavailable(model, _why_not_loaded(model, Path(path), error)) from None


def _why_not_loaded(model: str, path: Path, error: Exception) -> str:
    known = {"", *(operator.domain for operator in _native.get_all_operator_schema())}
    if path.suffix != ".ort" and (foreign := foreign_domains(model, path, known)):
        which = f"of the domain{'s' if foreign[1:] else ''} {', '.join(map(repr, foreign))}"
        return f"it uses operators {which} that ONNX Runtime does not have (custom operators are not loaded)"
    return f"{_WHY_NOT_LOADED.get(type(error), 'ONNX Runtime refuses it')} ({type(error).__name__})"
