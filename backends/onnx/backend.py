"""ONNX Runtime as a backend: the application's side of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ...core.answer import Embeddings, Inference, Usage
from ...core.content import EmbedInput, InferInput
from ...core.errors import ModelUnavailable
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ..backend import Backend, BackendHealth, CallContext, Capabilities, HealthState
from ..models import ModelFile
from ..process.engine import Parcel
from ..process.frames import JsonObject
from ..process.worker_process import WorkerProcess
from .settings import OnnxSettings, OnnxTask
from .wire import pack, unpack

_ENGINE = "edgewise.backends.onnx.engine:OnnxEngine"
_PLACE = "device"


class OnnxBackend(Backend):
    """`embed` with one model, or `infer` with one or several, in a worker process that comes back after a crash."""

    def __init__(self, name: str, settings: OnnxSettings, models: Mapping[str, ModelFile]) -> None:
        super().__init__(name)
        self._settings = settings
        self._models = models
        self._worker: WorkerProcess | None = None
        self._failure: AttemptError | None = None
        self._prepared = asyncio.Event()
        self._stopped = False

    @property
    def capabilities(self) -> Capabilities:
        """One task, one call at a time: ONNX Runtime spreads each over the processor."""
        models = frozenset(self._settings.served) if self._settings.task is OnnxTask.INFER else None
        return Capabilities(frozenset({Task(self._settings.task.value)}), models=models)

    def health(self) -> BackendHealth:
        """The worker's health; before there is one, whether its models are being read."""
        if self._failure is not None:
            return BackendHealth(HealthState.DOWN, self._failure.sentence)
        if self._worker is None:
            return BackendHealth(HealthState.LOADING, "the model files have not been read")
        return self._worker.health

    async def start(self) -> None:
        """Prove the model files, start the worker, load."""
        self._stopped = False
        try:
            settings = await asyncio.to_thread(self._engine_settings)
        except ModelUnavailable as error:
            self._settle(AttemptError(FailureKind.MODEL_UNAVAILABLE, str(error)))
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, str(error)) from None
        if self._stopped:
            raise self._was_stopped()
        if self._worker is None:
            self._worker = WorkerProcess(self.name, _ENGINE, settings)
        self._settle(None)
        await self._worker.start()

    async def stop(self) -> None:
        """End the worker and all calls."""
        self._stopped = True
        if self._worker is not None:
            await self._worker.stop()
        else:
            self._settle(self._was_stopped())

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """One vector a text. A text beyond the model's limit is CONTEXT_LENGTH; none is cut."""
        if self._settings.task is not OnnxTask.EMBED:
            raise self._unsupported(Task.EMBED)
        for index, text in enumerate(call.texts):
            if not _is_unicode(text):
                sentence = f"text {index} is not valid Unicode (it has a lone surrogate)"
                raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
        answer = await self._ask(Parcel({"texts": call.texts}), context)
        usage = Usage(prompt_tokens=answer.fields["prompt_tokens"])
        return Embeddings(unpack(answer)["vectors"], usage, model=self._settings.model or "", place=_PLACE)

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        """Run one of the models. Names, types and shapes are compared with the model's own before it runs."""
        if self._settings.task is not OnnxTask.INFER:
            raise self._unsupported(Task.INFER)
        served = self._settings.served
        if call.model not in served:
            sentence = f"backend {self.name!r} has no model {call.model!r}; it has {', '.join(map(repr, served))}"
            raise AttemptError(FailureKind.UNKNOWN_MODEL, sentence)
        answer = await self._ask(pack({"model": call.model}, call.inputs), context)
        return Inference(unpack(answer), model=call.model, place=_PLACE)

    async def _ask(self, call: Parcel, context: CallContext) -> Parcel:
        await self._prepared.wait()
        if self._failure is not None:
            raise AttemptError(self._failure.kind, self._failure.sentence)
        assert self._worker is not None, "prepared without a failure means that there is a worker"
        return await self._worker.unary(call, context.priority, context.deadline)

    def _was_stopped(self) -> AttemptError:
        return AttemptError(FailureKind.PREEMPTED, f"backend {self.name!r} was stopped")

    def _settle(self, failure: AttemptError | None) -> None:
        self._failure = failure
        self._prepared.set()

    def _engine_settings(self) -> JsonObject:
        """What `OnnxEngine.load` takes. Reads every model file, to prove it."""
        settings = self._settings
        return {
            "task": settings.task,
            "models": {name: self._proven(model) for name, model in settings.served.items()},
            "tokenizer": settings.tokenizer and {"name": settings.tokenizer, "path": self._proven(settings.tokenizer)},
            "pooling": settings.pooling,
            "normalize": settings.normalize,
            "max_tokens": settings.max_tokens,
            "threads": settings.threads,
            "providers": settings.providers,
        }

    def _proven(self, model: str) -> str:
        return str(self._models[model].verify().absolute())


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
