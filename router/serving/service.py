"""`edgewise.v1.ModelService` over started backends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from ...backends import Backend, CallContext, HealthState
from ...core.answer import Delta
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ...protos.v1 import model_service_pb2 as wire
from .admission import Admission
from .refusals import refuse
from .requests import call_context, embed_input, generate_input, infer_input, parse
from .responses import TASKS, delta_bytes, embeddings_bytes, finish_bytes, inference_bytes

SERVICE_NAME = wire.DESCRIPTOR.services_by_name["ModelService"].full_name

_log = logging.getLogger(__name__)

T = TypeVar("T")

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Served:
    """A model that is offered: its name here, who does the work, and the places there."""

    name: str
    backend: Backend
    admission: Admission

    def can(self, task: Task) -> bool:
        return task in self.backend.capabilities.tasks


class ModelService:
    """Answers calls by the backends given, by their names here. Messages come and go as bytes.

    That a client went away, cancelled or ran out of time arrives as this task's cancellation, and so reaches the
    backend.
    """

    def __init__(self, backends: Mapping[str, Backend], place: str, max_waiting: int) -> None:
        self._place = place
        self._served = {
            name: _Served(name, backend, Admission(backend.capabilities.max_concurrency, max_waiting))
            for name, backend in backends.items()
        }

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods, for a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Generate": grpc.unary_stream_rpc_method_handler(self._generate),
                "Embed": grpc.unary_unary_rpc_method_handler(self._embed),
                "Infer": grpc.unary_unary_rpc_method_handler(self._infer),
                "ListModels": grpc.unary_unary_rpc_method_handler(self._list_models),
            },
        )

    async def _generate(self, request: bytes, context: Context) -> None:
        await _guard(self._stream(request, context), context)

    async def _embed(self, request: bytes, context: Context) -> bytes:
        return await _guard(self._vectors(request, context), context)

    async def _infer(self, request: bytes, context: Context) -> bytes:
        return await _guard(self._outputs(request, context), context)

    async def _stream(self, data: bytes, context: Context) -> None:
        request = parse(wire.GenerateRequest, data)
        call = generate_input(request)
        served = self._choose(request.model, Task.GENERATE)
        async with served.admission.place():
            events = served.backend.generate(call, _context(request.call, context))
            try:
                async for event in events:
                    if isinstance(event, Delta):
                        await context.write(delta_bytes(event))
                    else:
                        await context.write(finish_bytes(event, self._origin(served, event.model)))
                        return
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()
        raise AttemptError(FailureKind.TRUNCATED, "the model stopped without saying why")

    async def _vectors(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.EmbedRequest, data)
        call = embed_input(request)
        served = self._choose(request.model, Task.EMBED)
        async with served.admission.place():
            embeddings = await served.backend.embed(call, _context(request.call, context))
        return embeddings_bytes(embeddings, self._origin(served, embeddings.model))

    async def _outputs(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.InferRequest, data)
        served, model = self._choose_inference(request.model)
        call = infer_input(request, model)
        async with served.admission.place():
            inference = await served.backend.infer(call, _context(request.call, context))
        return inference_bytes(inference, self._origin(served, inference.model))

    async def _list_models(self, request: bytes, context: Context) -> bytes:
        models = [_description(served) for served in self._served.values()]
        return wire.ListModelsResponse(models=models, place=self._place).SerializeToString()

    def _choose(self, name: str, task: Task) -> _Served:
        if name:
            served = self._served.get(name)
            if served is None:
                raise AttemptError(FailureKind.MODEL_UNAVAILABLE, "no model of this name is served here")
            if not served.can(task):
                raise AttemptError(FailureKind.UNSUPPORTED, f"this model cannot {task}")
            return served
        able = [served for served in self._served.values() if served.can(task)]
        if not able:
            raise AttemptError(FailureKind.UNSUPPORTED, f"no model here can {task}")
        if len(able) > 1:
            raise AttemptError(FailureKind.MODEL_UNAVAILABLE, f"several models here can {task}; name one")
        return able[0]

    def _choose_inference(self, name: str) -> tuple[_Served, str]:
        """Who infers, and by which of its models: found by the model's name, or by the server's where it has one."""
        for served in self._served.values():
            models = served.backend.capabilities.models
            if served.can(Task.INFER) and models is not None and name in models:
                return served, name
        served = self._choose(name, Task.INFER)
        models = served.backend.capabilities.models
        if models is None:
            return served, name or served.name
        if len(models) > 1:
            raise AttemptError(FailureKind.UNKNOWN_MODEL, "several models here can infer; name one")
        return served, next(iter(models))

    def _origin(self, served: _Served, model: str) -> wire.Origin:
        load = wire.Load(queue_depth=served.admission.waiting)
        return wire.Origin(model=model or served.name, place=self._place, load=load)


async def _guard(work: Awaitable[T], context: Context) -> T:
    """Await ``work``; end the call with a status of ours where it fails. The library would send an error's text."""
    try:
        return await work
    except AttemptError as error:
        failed = error
    except Exception as error:  # noqa: BLE001  whatever a backend raises against its contract may quote content
        _log.error("a served backend broke its contract by a %s", type(error).__name__)
        failed = AttemptError(FailureKind.INTERNAL, "the model failed in an unforeseen way")
    return await refuse(context, failed)


def _context(info: wire.CallInfo, context: Context) -> CallContext:
    return call_context(info, context.time_remaining(), asyncio.get_running_loop().time())


def _description(served: _Served) -> wire.Model:
    can = served.backend.capabilities
    return wire.Model(
        name=served.name,
        tasks=[TASKS[task] for task in sorted(can.tasks)],
        context_tokens=can.context_tokens,
        continues=can.continues,
        constrains=can.constrains,
        logprobs=can.logprobs,
        ready=served.backend.health().state is HealthState.READY,
    )
