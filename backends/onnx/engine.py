"""ONNX Runtime as a worker's engine."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from ...core.errors import InvalidRequest
from ...core.failure import AttemptError, FailureKind
from ..process.engine import Engine, Parcel, Progress, RunningCall
from ..process.frames import JsonObject
from ..tensors import to_array, to_tensor
from .settings import OnnxTask, Pooling
from .signature import check_inputs
from .wire import pack, unpack

if TYPE_CHECKING:
    from .embedder import Embedder
    from .session import Session


class OnnxEngine(Engine):
    """One or several models for `infer`, or one for `embed`. Its settings are made by `backend.engine_settings`."""

    def __init__(self) -> None:
        self._sessions: Mapping[str, Session] = {}
        self._embedder: Embedder | None = None

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        """Open all models, so that one that does not load is known before the first request."""
        if settings["threads"] is not None:
            # The tokenizer's own pool, read when its library starts.
            os.environ["RAYON_NUM_THREADS"] = str(settings["threads"])
        # Else its telemetry begins with the import, before it can be turned off by a call: a session file, an uploader.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            from .embedder import Embedder, TextTokenizer
            from .session import Session
        except ImportError as error:
            sentence = (
                f"the Python package {error.name or 'onnxruntime'!r} is missing or does not run here; "
                'pip install "edgewise[onnx]"'
            )
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, sentence) from None

        self._sessions = {
            name: Session(name, path, threads=settings["threads"], providers=settings["providers"])
            for name, path in settings["models"].items()
        }
        if settings["task"] == OnnxTask.EMBED:
            ((name, session),) = self._sessions.items()
            self._embedder = Embedder(
                name,
                session,
                TextTokenizer(settings["tokenizer"]["name"], settings["tokenizer"]["path"]),
                pooling=Pooling(settings["pooling"]),
                normalize=settings["normalize"],
                max_tokens=settings["max_tokens"],
            )
        return {}

    def run(self, call: Parcel, running: RunningCall) -> Generator[Parcel, None, None]:
        """One parcel: the output tensors, and for `embed` the number of tokens read."""
        if self._embedder is not None:
            yield _embed(self._embedder, call, running)
        else:
            model = call.fields["model"]
            yield _infer(model, self._sessions[model], call, running)


def _embed(embedder: Embedder, call: Parcel, running: RunningCall) -> Parcel:
    vectors, tokens = embedder.embed(call.fields["texts"], running)
    return pack({"prompt_tokens": tokens}, {"vectors": to_tensor(vectors)})


def _infer(model: str, session: Session, call: Parcel, running: RunningCall) -> Parcel:
    from .session import options_for

    tensors = unpack(call)
    check_inputs(model, session.inputs, tensors)
    try:
        feeds = {name: to_array(tensor, name=name) for name, tensor in tensors.items()}
    except InvalidRequest as error:
        raise AttemptError(FailureKind.INVALID_REQUEST, str(error)) from None
    arrays = session.run(feeds, options_for(running), outputs=session.outputs)
    return pack({}, {port.name: to_tensor(array) for port, array in zip(session.outputs, arrays, strict=True)})
