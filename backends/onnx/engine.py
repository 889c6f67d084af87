"""ONNX Runtime as a worker's engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...core.errors import InvalidRequest
from ...core.failure import AttemptError, FailureKind
from ..process.engine import Engine, Events, Parcel, Progress, RunningCall
from ..process.frames import JsonObject
from ..tensors import array_over
from .runtime import missing, prepare
from .settings import OnnxTask, Pooling, Scores
from .signature import check_inputs
from .wire import pack_arrays, pieces

if TYPE_CHECKING:
    from .session import Array, Session
    from .texts import TextModel

OfTexts = Callable[[list[str], RunningCall], "tuple[Array, int]"]
"""Makes one row a text, and counts their tokens."""


class OnnxEngine(Engine):
    """One or several models for `infer`, or one that reads texts. Its settings are made by `OnnxBackend`."""

    def __init__(self) -> None:
        self._sessions: Mapping[str, Session] = {}
        self._of_texts: OfTexts | None = None

    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        """Open all models, so that one that does not load is known before the first request.

        Returns ``fallback``, a sentence where a provider is not there, ``rows``: the models that take any number
        of rows, and ``signatures``: for each, its inputs and its outputs.
        """
        prepare(settings["threads"])
        try:
            from .session import Session
            from .texts import TextModel, TextTokenizer
        except ImportError as error:
            raise missing(error, "onnx") from None
        self._sessions = {
            name: Session(name, files, threads=settings["threads"], providers=settings["providers"])
            for name, files in settings["models"].items()
        }
        if (tokenizer := settings["tokenizer"]) is not None:
            ((name, session),) = self._sessions.items()
            texts = TextTokenizer(tokenizer["name"], tokenizer["path"])
            self._of_texts = _of_texts(TextModel(name, session, texts, settings["max_tokens"]), settings)
        return {
            "fallback": next((session.fallback for session in self._sessions.values() if session.fallback), ""),
            "rows": [name for name, session in self._sessions.items() if session.has_rows],
            "signatures": {
                name: [[port.described() for port in ports] for ports in (session.inputs, session.outputs)]
                for name, session in self._sessions.items()
            },
        }

    def run(self, call: Parcel, running: RunningCall) -> Events:
        """One parcel: the output tensors, or a row for each text and the number of tokens read."""
        yield from ()
        if self._of_texts is not None:
            return _rows(self._of_texts, call, running)
        model = call.fields["model"]
        return _infer(model, self._sessions[model], call, running)


def _of_texts(model: TextModel, settings: JsonObject) -> OfTexts:
    from .classifier import Classifier
    from .embedder import Embedder

    if settings["task"] == OnnxTask.CLASSIFY:
        return Classifier(model, labels=settings["labels"], scores=Scores(settings["scores"])).classify
    return Embedder(model, pooling=Pooling(settings["pooling"]), normalize=settings["normalize"]).embed


def _rows(of_texts: OfTexts, call: Parcel, running: RunningCall) -> Parcel:
    import numpy

    rows, tokens = of_texts(call.fields["texts"], running)
    if not numpy.isfinite(rows).all():
        # Compared or sorted, it would mean anything.
        raise AttemptError(FailureKind.INTERNAL, "the model made of a text what is no number")
    return pack_arrays({"prompt_tokens": tokens}, {"rows": rows})


def _infer(model: str, session: Session, call: Parcel, running: RunningCall) -> Parcel:
    tensors = pieces(call)
    check_inputs(model, session.inputs, tensors)
    try:
        feeds = {name: array_over(tensor, name=name) for name, tensor in tensors.items()}
    except InvalidRequest as error:
        raise AttemptError(FailureKind.INVALID_REQUEST, str(error)) from None
    return pack_arrays({}, session.run_whole(feeds, running))
