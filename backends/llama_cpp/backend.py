"""llama.cpp as a backend: the application's side of the worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ...core.answer import Embeddings, GenerateEvent, Usage
from ...core.content import CountTokensInput, EmbedInput, GenerateInput, Tensor
from ...core.request import Task
from ..backend import CallContext, Capabilities
from ..chat.call import call_fields, generate_event, may_overflow, require_unicode
from ..models import ModelFile
from ..process.engine import Parcel
from ..process.frames import JsonObject
from ..process.worker_backend import WorkerBackend
from ..process.worker_process import WorkerProcess
from .settings import LlamaCppSettings, LlamaCppTask

_ENGINE = "edgewise.backends.llama_cpp.engine:LlamaCppEngine"


class LlamaCppBackend(WorkerBackend):
    """Generates with one GGUF model, one request at a time; the worker comes back after a crash.

    Messages are rendered by the model's own chat template (ChatML where it has none). A last message of the assistant
    is continued as if the model had written it. Text of messages is never read as the model's control tokens.
    """

    def __init__(self, name: str, settings: LlamaCppSettings, model: ModelFile) -> None:
        self._settings = settings
        self._model = model
        worker = WorkerProcess(
            name,
            _ENGINE,
            self._engine_settings,
            settings_after_crash={"use_extra_buffers": False},
            memory_limit=settings.memory_limit,
            idle_unload=settings.idle_unload,
        )
        super().__init__(name, worker)

    @property
    def capabilities(self) -> Capabilities:
        """Text generation with everything there is to it, or embeddings; one call at a time."""
        if self._settings.task is LlamaCppTask.EMBED:
            return Capabilities(frozenset({Task.EMBED}), model_version=self._model.version)
        return Capabilities(
            frozenset({Task.GENERATE, Task.COUNT_TOKENS}),
            context_tokens=self._settings.context_tokens,
            continues=True,
            constrains=True,
            logprobs=True,
            model_version=self._model.version,
        )

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Stream an answer. A prompt that does not fit is CONTEXT_LENGTH before any work is done for it."""
        if self._settings.task is not LlamaCppTask.GENERATE:
            raise self._unsupported(Task.GENERATE)
        fields = call_fields(call, context)
        parcel = Parcel(fields)
        if may_overflow(call, self._settings.context_tokens):
            # Beside a running call, so that a request which cannot be answered here does not wait for its turn.
            await self.worker.ask(Parcel(fields | {"must_fit": True}), context.deadline)
        with await self.worker.stream(parcel, context.priority, context.deadline) as replies:
            async for event in replies:
                yield generate_event(event.fields, self._model.name, self.worker.waiting)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        """How many tokens the prompt has, by the model's own template and vocabulary, whether it fits or not.

        Answered beside whatever runs; nothing is generated.
        """
        if self._settings.task is not LlamaCppTask.GENERATE:
            raise self._unsupported(Task.COUNT_TOKENS)
        question = Parcel(call_fields(GenerateInput(call.messages), context) | {"must_fit": False})
        return int((await self.worker.ask(question, context.deadline)).fields["prompt_tokens"])

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        """One vector a text. A text beyond ``context_tokens`` is CONTEXT_LENGTH; none is cut."""
        if self._settings.task is not LlamaCppTask.EMBED:
            raise self._unsupported(Task.EMBED)
        require_unicode(call.texts)
        answer = await self.worker.unary(Parcel({"texts": call.texts}), context.priority, context.deadline)
        rows, length = answer.fields["shape"]
        usage = Usage(prompt_tokens=answer.fields["prompt_tokens"])
        vectors = Tensor("float32", (rows, length), bytes(answer.payload))
        return Embeddings(vectors, usage, model=self._model.name, place="device")

    def _engine_settings(self) -> JsonObject:
        """What `LlamaCppEngine.load` takes. Reads the whole model file, to prove it."""
        settings = self._settings
        return {
            "path": str(self._model.verify().absolute()),
            "name": self._model.name,
            "context_tokens": settings.context_tokens,
            "threads": settings.threads,
            "gpu_layers": settings.gpu_layers,
            "batch_tokens": settings.batch_tokens,
            "top_k": settings.top_k,
            "mmap": settings.mmap,
            "mlock": settings.mlock,
            "use_extra_buffers": settings.use_extra_buffers,
            "task": settings.task,
            "pooling": settings.pooling,
            "normalize": settings.normalize,
        }
