"""Text generation by onnxruntime-genai: the application's side of the worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from ...core.answer import GenerateEvent
from ...core.content import CountTokensInput, GenerateInput
from ...core.request import Task
from ..backend import CallContext, Capabilities
from ..chat.call import call_fields, generate_event, may_overflow
from ..models import ModelFile
from ..process.engine import Parcel
from ..process.frames import JsonObject
from .settings import OnnxSettings
from .worker_backend import OnnxWorkerBackend, model_fields

_ENGINE = "edgewise.backends.onnx.generation_engine:OnnxGenerationEngine"


class OnnxGenerateBackend(OnnxWorkerBackend):
    """Generates with one model, one request at a time.

    Messages are rendered by the chat template that lies beside the model (ChatML where there is none). A last message
    of the assistant is continued as if the model had written it. Text of messages is never read as control tokens.
    """

    def __init__(self, name: str, settings: OnnxSettings, models: Mapping[str, ModelFile]) -> None:
        assert settings.model is not None, "`check` has seen to it"
        self._settings = settings
        self._model = models[settings.model]
        self._tokenizer = None if settings.tokenizer is None else models[settings.tokenizer]
        super().__init__(name, settings, _ENGINE, self._engine_settings)

    @property
    def capabilities(self) -> Capabilities:
        """Text generation, one call at a time."""
        return Capabilities(
            frozenset({Task.GENERATE, Task.COUNT_TOKENS}),
            context_tokens=self._settings.context_tokens,
            continues=True,
            constrains=True,
            logprobs=True,
        )

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        """Stream an answer. A prompt that does not fit is CONTEXT_LENGTH before any work is done for it."""
        fields = call_fields(call, context)
        if may_overflow(call, self._settings.context_tokens):
            # Beside a running call, so that a request which cannot be answered here does not wait for its turn.
            await self.worker.ask(Parcel(fields | {"must_fit": True}), context.deadline)
        with await self.worker.stream(Parcel(fields), context.priority, context.deadline) as replies:
            async for event in replies:
                yield generate_event(event.fields, self._model.name, self.worker.waiting)

    async def count_tokens(self, call: CountTokensInput, context: CallContext) -> int:
        """How many tokens the prompt has, by the model's own template and vocabulary, whether it fits or not.

        Answered beside whatever runs; nothing is generated.
        """
        question = Parcel(call_fields(GenerateInput(call.messages), context) | {"must_fit": False})
        return int((await self.worker.ask(question, context.deadline)).fields["prompt_tokens"])

    def _engine_settings(self) -> JsonObject:
        """What `OnnxGenerationEngine.load` takes. Reads all files of the model, to prove them."""
        settings = self._settings
        return {
            "model": {"name": self._model.name, **model_fields(self._model)},
            "tokenizer": None if self._tokenizer is None else str(self._tokenizer.verify().absolute()),
            "context_tokens": settings.context_tokens,
            "top_k": settings.top_k,
            "threads": settings.threads,
            "providers": settings.providers,
        }
