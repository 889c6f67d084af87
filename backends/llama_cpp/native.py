"""llama.cpp's C functions as a model with a context. Imported in the worker only; loading it loads the library."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import llama_cpp
import numpy

from ...core.failure import AttemptError, FailureKind
from ..chat.logprobs import Logits
from ..process.engine import Progress
from ..process.frames import JsonObject
from ..process.memory import all_memory, free_memory, locked_memory
from .gguf_file import why_refused
from .threads import default_threads
from .vocabulary import Vocabulary

_ABORTED = 2

# llama.cpp keeps the pointer for good, so the object must live as long as the process.
_SILENCE = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p(0))


class Context:
    """One loaded model with its memory of one conversation, for one thread at a time; `abort` is for any thread."""

    def __init__(self, wanted: JsonObject, progress: Progress) -> None:
        settings = {**wanted, "gpu_layers": wanted["gpu_layers"] if _has_gpu() else 0}
        self._model = _load_model(settings, progress)
        self.fallback = " ".join((*_on_cpu(wanted), *_unlocked(settings, self._model)))
        """What was asked for and is not so, in a sentence each."""
        handle = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = Vocabulary(handle)
        template = llama_cpp.llama_model_chat_template(self._model, None)
        self.chat_template: str | None = None if template is None else template.decode("utf-8", "replace")
        self.size: int = settings["context_tokens"]
        self.batch_tokens: int = min(settings["batch_tokens"], self.size)
        """How many tokens are read at once, at most."""
        self.handle = self._open(settings)
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._held: list[int] = []
        self._data_classes: list[str] = []
        self._reused: int | None = None
        self._abort_flag = ctypes.create_string_buffer(2)
        self._let_abort()

    def read(self, tokens: Sequence[int], data_classes: list[str], *, afresh: bool) -> bool:
        """Read a prompt, so that its next token can be sampled; False when aborted.

        What an earlier prompt of the same data classes has in common with it is not read again, unless ``afresh``.
        """
        kept = 0 if afresh or data_classes != self._data_classes else _common(self._held, tokens[:-1])
        if kept == 0 or not llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1):
            self.forget()
            kept = 0
        if self._reused is None:
            self._reused = kept
        self._held = list(tokens[:kept])
        self._data_classes = data_classes
        ends = range(kept, len(tokens), self.batch_tokens)
        return all(self.append(tokens[start : start + self.batch_tokens]) for start in ends)

    def append(self, tokens: Sequence[int]) -> bool:
        """Read some more tokens; False when aborted, after which the memory is empty."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)  # The batch points into it.
        result = llama_cpp.llama_decode(self.handle, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if result == 0:
            self._held += tokens
            return True
        return self._undone(result)

    def predict(self, tokens: Sequence[int]) -> bool:
        """Read up to ``batch_tokens`` more tokens and keep the logits after each; False when aborted, as `append`."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for at, token in enumerate(tokens):
                batch.token[at] = token
                batch.pos[at] = len(self._held) + at
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = 0
                batch.logits[at] = True
            result = llama_cpp.llama_decode(self.handle, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        if result != 0:
            return self._undone(result)
        self._held += tokens
        return True

    @property
    def reused(self) -> int:
        """How many tokens that earlier calls had read this one did not read again."""
        return self._reused or 0

    @property
    def used(self) -> int:
        """How many tokens the memory holds."""
        return len(self._held)

    def logit(self, token: int) -> float:
        """One of `logits`, at less cost than all."""
        return float(llama_cpp.llama_get_logits_ith(self.handle, -1)[token])

    def logits(self, at: int = -1) -> Logits:
        """Those of the next token, or within the last `predict` of the one after ``at``. Valid until the next read."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, at)
        return numpy.ctypeslib.as_array(pointer, (self.vocabulary.size,))

    def _undone(self, result: int) -> bool:
        """What a decode that failed leaves: an empty memory. False for an aborted one, else raises."""
        self.forget()
        if result == _ABORTED:
            return False
        raise AttemptError(FailureKind.INTERNAL, f"llama.cpp could not decode (llama_decode returned {result})")

    def embed(self, tokens: Sequence[int]) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]] | None:
        """One text's vector, by a context that was opened for `embed`; None when aborted."""
        self.forget()
        if not self.append(tokens):
            return None
        pointer = llama_cpp.llama_get_embeddings_seq(self.handle, 0)
        return numpy.array(numpy.ctypeslib.as_array(pointer, (llama_cpp.llama_model_n_embd(self._model),)))

    def forget(self) -> None:
        """Empty the memory."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self._held = []

    def abort(self) -> None:
        """Make a decode that runs, and every later one, stop, until `rearm`."""
        self._abort_flag[0] = b"\1"

    def rearm(self) -> None:
        """Begin a call: decodes run again."""
        self._reused = None
        self._abort_flag[0] = b"\0"

    def _let_abort(self) -> None:
        # llama.cpp asks before every node of its graph, some 500 times a token. A Python function would take the
        # interpreter lock each time; strlen of the flag ("" or "\1", so 0 or 1) is a C function that answers the same.
        ask = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
        llama_cpp.llama_set_abort_callback(self.handle, ask, ctypes.cast(self._abort_flag, ctypes.c_void_p))

    def _open(self, settings: JsonObject) -> int:
        trained = llama_cpp.llama_model_n_ctx_train(self._model)
        if settings["context_tokens"] > trained:
            sentence = f"model {settings['name']!r} has a context of {trained} tokens; lower context_tokens"
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)
        self._require_room_for_context(settings)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = settings["context_tokens"]
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_threads = params.n_threads_batch = settings["threads"] or default_threads()
        # A sliding window that forgets could not be cut back to a common beginning.
        params.swa_full = True
        params.no_perf = True
        if settings["task"] == "embed":
            # A model without a causal order reads a text in one piece.
            params.n_batch = params.n_ubatch = settings["context_tokens"]
            params.embeddings = True
            params.pooling_type = self._pooling(settings["pooling"])
        handle = llama_cpp.llama_init_from_model(self._model, params)
        if handle is None:
            sentence = f"model {settings['name']!r} finds no memory for its context; lower context_tokens"
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)
        return int(handle)

    def _require_room_for_context(self, settings: JsonObject) -> None:
        """Raise where keys and values of so many tokens, in 16 bits each, are more than the memory left."""
        model = self._model
        heads, kept_heads = llama_cpp.llama_model_n_head(model), llama_cpp.llama_model_n_head_kv(model)
        width = llama_cpp.llama_model_n_embd(model) * kept_heads // max(1, heads)
        size = 4 * llama_cpp.llama_model_n_layer(model) * width * settings["context_tokens"]
        if not settings["gpu_layers"] and size > (room := free_memory()):
            sentence = f"a context of {settings['context_tokens']} tokens takes {size >> 20} MiB with model "
            sentence += f"{settings['name']!r}, and {room >> 20} MiB of memory are free; lower context_tokens"
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)

    def _pooling(self, wanted: str) -> int:
        if wanted != "model":
            return int(getattr(llama_cpp, f"LLAMA_POOLING_TYPE_{wanted.upper()}"))
        architecture = self._metadata("general.architecture")
        says = self._metadata(f"{architecture}.pooling_type")
        return int(says) if says.isdecimal() and int(says) else int(llama_cpp.LLAMA_POOLING_TYPE_MEAN)

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(128)
        found = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if found > 0 else ""


def _load_model(settings: JsonObject, progress: Progress) -> int:
    _require_room_for_file(settings)
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = settings["gpu_layers"]
    params.load_mode = {
        (False, False): llama_cpp.LLAMA_LOAD_MODE_NONE,
        (True, False): llama_cpp.LLAMA_LOAD_MODE_MMAP,
        (False, True): llama_cpp.LLAMA_LOAD_MODE_MLOCK,
        (True, True): llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK,
    }[settings["mmap"], settings["mlock"]]
    # Matrix units that a virtual machine shows but does not have kill the process; then the worker comes back without.
    params.use_extra_bufts = settings["use_extra_buffers"]
    params.progress_callback = _progress_callback(progress)
    model = llama_cpp.llama_model_load_from_file(settings["path"].encode(), params)
    if model is None:
        sentence = f"model {settings['name']!r} cannot be loaded: {why_refused(Path(settings['path']))}"
        raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence)
    return int(model)


def _has_gpu() -> bool:
    return bool(llama_cpp.llama_supports_gpu_offload())


def _on_cpu(wanted: JsonObject) -> Iterator[str]:
    if wanted["gpu_layers"] and not _has_gpu():
        yield "this llama.cpp was built for no GPU that is here, so that all layers are computed on the CPU."


def _unlocked(settings: JsonObject, model: int) -> Iterator[str]:
    size, locked = int(llama_cpp.llama_model_size(model)), locked_memory()
    if settings["mlock"] and not settings["gpu_layers"] and locked is not None and locked < size:
        sentence = f"the system keeps {locked >> 20} of the model's {size >> 20} MiB in memory"
        yield f"{sentence}; raise its limit (`ulimit -l`)."


def _progress_callback(progress: Progress) -> object:
    def tell(share: float, data: object) -> bool:
        progress(share)
        return True  # go on

    return llama_cpp.llama_progress_callback(tell)


def _require_room_for_file(settings: JsonObject) -> None:
    """Raise where the file is larger than the memory: the system would end somebody, or stand still.

    A mapped file may push out what can be read again, so that all memory counts for it.
    """
    if settings["gpu_layers"]:
        return
    size = Path(settings["path"]).stat().st_size
    room = all_memory() if settings["mmap"] else free_memory()
    if size > room:
        sentence = f"model {settings['name']!r} takes {size >> 20} MiB, and {room >> 20} MiB of memory are there"
        raise AttemptError(FailureKind.MODEL_UNAVAILABLE, f"{sentence}; use a smaller model, or a smaller quantisation")


def require_number(value: float) -> None:
    """Raise INTERNAL for NaN and the infinities: a damaged model goes on with them as if nothing were."""
    if not math.isfinite(value):
        raise AttemptError(FailureKind.INTERNAL, "the model computes what is no number; its file may be damaged")


def _common(held: Sequence[int], tokens: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    return next((n for n, (a, b) in enumerate(zip(held, tokens, strict=False)) if a != b), min(len(held), len(tokens)))
