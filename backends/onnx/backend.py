"""Tensors, vectors and labels by ONNX Runtime: the application's side of the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.answer import Classification, Embeddings, Inference, Usage
from ...core.content import ClassifyInput, EmbedInput, InferInput, Tensor
from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...core.request import Priority, Task
from ..backend import CallContext, Capabilities, ModelSignature, TensorSpec
from ..chat.call import require_unicode
from ..models import ModelFile
from ..process.engine import Parcel
from ..process.frames import JsonObject
from .batching import Batcher
from .settings import OnnxSettings, OnnxTask
from .wire import pack, unpack
from .worker_backend import OnnxWorkerBackend, model_fields

_ENGINE = "edgewise.backends.onnx.engine:OnnxEngine"
_PLACE = "device"


class OnnxBackend(OnnxWorkerBackend):
    """`embed` or `classify` with one model, or `infer` with one or several."""

    def __init__(self, name: str, settings: OnnxSettings, models: Mapping[str, ModelFile]) -> None:
        self._settings = settings
        self._models = models
        super().__init__(name, settings, _ENGINE, self._engine_settings)
        wait = settings.batch_wait
        self._batcher = None if wait is None else Batcher(self._infer, wait=wait, most=settings.max_batch)

    @property
    def capabilities(self) -> Capabilities:
        """One task, one call at a time: ONNX Runtime spreads each over the processor. As many as a batch may hold."""
        models = frozenset(self._settings.served) if self._settings.task is OnnxTask.INFER else None
        together = 1 if self._batcher is None else self._settings.max_batch
        return Capabilities(frozenset({Task(self._settings.task.value)}), models=models, max_concurrency=together)

    def signature(self, model: str) -> ModelSignature | None:
        """The model's own, from when it was last loaded."""
        found = self.worker.info.get("signatures", {}).get(model)
        if found is None or self._settings.task is not OnnxTask.INFER:
            return None
        inputs, outputs = (
            tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in ports) for ports in found
        )
        return ModelSignature(inputs, outputs)

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """One vector a text. A text beyond the model's limit is CONTEXT_LENGTH; none is cut."""
        if self._settings.task is not OnnxTask.EMBED:
            raise self._unsupported(Task.EMBED)
        vectors, usage = await self._rows(call.texts, context)
        return Embeddings(vectors, usage, model=self._settings.model or "", place=_PLACE)

    async def classify(self, call: ClassifyInput, context: CallContext) -> Classification:
        """Scores of the configured labels. A text beyond the model's limit is CONTEXT_LENGTH; none is cut."""
        if self._settings.task is not OnnxTask.CLASSIFY:
            raise self._unsupported(Task.CLASSIFY)
        scores, usage = await self._rows(call.texts, context)
        return Classification(self._settings.labels, scores, usage, model=self._settings.model or "", place=_PLACE)

    async def infer(self, call: InferInput, context: CallContext) -> Inference:
        """Run one of the models. Names, types and shapes are compared with the model's own before it runs.

        NaN and infinity go in and come out as they are: a model may mean something by them.
        """
        if self._settings.task is not OnnxTask.INFER:
            raise self._unsupported(Task.INFER)
        served = self._settings.served
        if call.model not in served:
            sentence = f"backend {self.name!r} has no model {call.model!r}; it has {', '.join(map(repr, served))}"
            raise AttemptError(FailureKind.UNKNOWN_MODEL, sentence)
        if self._batcher is not None and call.model in self.worker.info.get("rows", ()):
            outputs = await self._batcher.infer(call.model, call.inputs, context)
        else:
            outputs = await self._infer(call.model, call.inputs, context.priority, context.deadline)
        return Inference(outputs, model=call.model, place=_PLACE)

    async def _infer(
        self, model: str, inputs: Mapping[str, Tensor], priority: Priority, deadline: Deadline
    ) -> dict[str, Tensor]:
        return unpack(await self.worker.unary(pack({"model": model}, inputs), priority, deadline))

    async def _rows(self, texts: Sequence[str], context: CallContext) -> tuple[Tensor, Usage]:
        require_unicode(texts)
        answer = await self.worker.unary(Parcel({"texts": list(texts)}), context.priority, context.deadline)
        return unpack(answer)["rows"], Usage(prompt_tokens=answer.fields["prompt_tokens"])

    def _engine_settings(self) -> JsonObject:
        """What `OnnxEngine.load` takes. Reads every model file, to prove it."""
        settings = self._settings
        tokenizer = settings.tokenizer
        return {
            "task": settings.task,
            "models": {name: model_fields(self._models[model]) for name, model in settings.served.items()},
            "tokenizer": None
            if tokenizer is None
            else {"name": tokenizer, "path": str(self._models[tokenizer].verify().absolute())},
            "pooling": settings.pooling,
            "normalize": settings.normalize,
            "labels": len(settings.labels),
            "scores": settings.scores,
            "max_tokens": settings.max_tokens,
            "threads": settings.threads,
            "providers": settings.providers,
        }
