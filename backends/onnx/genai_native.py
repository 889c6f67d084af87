"""onnxruntime-genai by its C interface. Runs in the worker.

The Python classes of the library hold the interpreter lock while the model reads a prompt, for seconds: the worker
could not hear that a call was cancelled, nor answer a ping. A call through ctypes gives the lock away.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import onnxruntime_genai

from ..chat.logprobs import Logits

_Pointer = ctypes.c_void_p
_FLOAT32, _FLOAT16 = 1, 10  # ONNX's numbers of the element types
_SAMPLES_WITHOUT_SEED = -1
_SEEDS = 2**31 - 1


class GenAiError(Exception):
    """The library failed. Its own text may quote content and stays where it is."""


def _library() -> ctypes.CDLL:
    folder = Path(onnxruntime_genai.__file__).parent
    for pattern in ("libonnxruntime-genai.so", "libonnxruntime-genai.dylib", "onnxruntime-genai.dll"):
        if (folder / pattern).exists():
            return ctypes.CDLL(str(folder / pattern))
    raise ImportError("the package onnxruntime_genai has no library", name="onnxruntime_genai")


_lib = _library()
_lib.OgaDestroyResult.argtypes = [_Pointer]


def _call(name: str, *arguments: Any) -> None:
    function = getattr(_lib, name)
    function.restype = _Pointer
    if result := function(*arguments):
        _lib.OgaDestroyResult(result)
        raise GenAiError(name)


def _make(name: str, *arguments: Any) -> _Pointer:
    made = _Pointer()
    _call(name, *arguments, ctypes.byref(made))
    return made


def _destroyer(name: str) -> Callable[[_Pointer], None]:
    function = getattr(_lib, name)
    function.argtypes, function.restype = [_Pointer], None
    return function  # type: ignore[no-any-return]  # a ctypes function has no type


_destroy_config = _destroyer("OgaDestroyConfig")
_destroy_params = _destroyer("OgaDestroyGeneratorParams")
_destroy_generator = _destroyer("OgaDestroyGenerator")
_destroy_tensor = _destroyer("OgaDestroyTensor")


class Model:
    """A loaded model; lives as long as the process."""

    def __init__(self, folder: Path) -> None:
        """Load what a folder's ``genai_config.json`` names. Raises `GenAiError`."""
        config = _make("OgaCreateConfig", str(folder).encode())
        try:
            self.handle = _make("OgaCreateModelFromConfig", config)
        finally:
            _destroy_config(config)


class Generation:
    """One answer being made. Make it with `generation`, which frees it.

    Of all methods only `stop` is for any thread.
    """

    def __init__(self, generator: _Pointer) -> None:
        self._generator = generator
        self._ending = threading.Lock()
        self._ended = False

    def read(self, tokens: Sequence[int]) -> None:
        """Read a prompt, or some more of it. Raises `GenAiError`, also when stopped."""
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        _call("OgaGenerator_AppendTokens", self._generator, array, ctypes.c_size_t(len(tokens)))

    def next(self) -> int:
        """The next token. Raises `GenAiError`, also when stopped."""
        _call("OgaGenerator_GenerateNextToken", self._generator)
        tokens, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        _call("OgaGenerator_GetNextTokens", self._generator, ctypes.byref(tokens), ctypes.byref(count))
        return int(tokens[0])

    def logits(self) -> Logits:
        """What the model thinks of every token of its vocabulary, as the next one."""
        tensor = _make("OgaGenerator_GetLogits", self._generator)
        try:
            data, kind, rank = _Pointer(), ctypes.c_int(), ctypes.c_size_t()
            _call("OgaTensorGetData", tensor, ctypes.byref(data))
            _call("OgaTensorGetType", tensor, ctypes.byref(kind))
            _call("OgaTensorGetShapeRank", tensor, ctypes.byref(rank))
            shape = (ctypes.c_int64 * rank.value)()
            _call("OgaTensorGetShape", tensor, shape, rank)
            dtype = numpy.dtype(numpy.float16 if kind.value == _FLOAT16 else numpy.float32)
            size = int(numpy.prod(list(shape)))
            raw = ctypes.string_at(data.value or 0, size * dtype.itemsize)
        finally:
            _destroy_tensor(tensor)
        last: Logits = numpy.frombuffer(raw, dtype).reshape(-1, shape[-1])[-1].astype(numpy.float32)
        return last

    def prefer(self, logits: Logits) -> None:
        """Choose the next token by these, instead of by what the model thinks."""
        shape = (ctypes.c_int64 * 2)(1, logits.size)
        data = logits.ctypes.data_as(_Pointer)
        tensor = _make("OgaCreateTensorFromBuffer", data, shape, ctypes.c_size_t(2), ctypes.c_int(_FLOAT32))
        try:
            _call("OgaGenerator_SetLogits", self._generator, tensor)
        finally:
            _destroy_tensor(tensor)

    def stop(self) -> None:
        """Have what runs, and all that would follow, end with a `GenAiError`. For any thread, at any time."""
        with self._ending:
            if not self._ended:
                _call("OgaGenerator_SetRuntimeOption", self._generator, b"terminate_session", b"1")

    def end(self) -> None:
        """Free it."""
        with self._ending:
            self._ended = True
        _destroy_generator(self._generator)


@contextmanager
def generation(
    model: Model, *, length: int, temperature: float, top_p: float, top_k: int, seed: int | None
) -> Iterator[Generation]:
    """An answer with room for ``length`` tokens, the prompt's among them. At temperature 0 it is greedy."""
    params = _make("OgaCreateGeneratorParams", model.handle)
    try:
        greedy = temperature <= 0.0
        _set_flag(params, "do_sample", not greedy)
        _set_number(params, "max_length", length)
        _set_number(params, "random_seed", _SAMPLES_WITHOUT_SEED if seed is None else seed % _SEEDS)
        if not greedy:
            _set_number(params, "temperature", temperature)
            _set_number(params, "top_p", top_p)
            _set_number(params, "top_k", top_k)
        answer = Generation(_make("OgaCreateGenerator", model.handle, params))
        try:
            yield answer
        finally:
            answer.end()
    finally:
        _destroy_params(params)


def _set_number(params: _Pointer, name: str, value: float) -> None:
    _call("OgaGeneratorParamsSetSearchNumber", params, name.encode(), ctypes.c_double(value))


def _set_flag(params: _Pointer, name: str, value: bool) -> None:
    _call("OgaGeneratorParamsSetSearchBool", params, name.encode(), ctypes.c_bool(value))
