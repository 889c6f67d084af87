"""`edgewise.v1.ModelService` over started backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import aclosing, closing
from typing import TypeVar

import grpc
import grpc.aio

from ...backends import CallContext
from ...core.request import Task
from ...protos.v1 import model_service_pb2 as wire
from .answers import classified, counted, embedded, generated, inferred
from .callers import caller_of
from .peers import PeerLimit
from .refusals import refuse, told
from .requests import (
    call_context,
    classify_input,
    count_input,
    embed_input,
    generate_input,
    infer_input,
    parse,
    refuse_elsewhere,
)
from .served import Roster
from .settings import ServeSettings
from .work import Produce, Work
from .works import Request, Works

SERVICE_NAME = wire.DESCRIPTOR.services_by_name["ModelService"].full_name

T = TypeVar("T")

Context = grpc.aio.ServicerContext[bytes, bytes]


class ModelService:
    """Answers calls by the models of a roster. Messages come and go as bytes.

    That a client went away, cancelled or ran out of time arrives as this task's cancellation; the work hears of it by
    losing its reader.
    """

    def __init__(self, roster: Roster, works: Works, peers: PeerLimit, settings: ServeSettings) -> None:
        self._roster = roster
        self._works = works
        self._peers = peers
        self._place = settings.place
        self._remember = settings.remember

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods, for a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Generate": grpc.unary_stream_rpc_method_handler(self._generate),
                "Resume": grpc.unary_stream_rpc_method_handler(self._resume),
                "Release": grpc.unary_unary_rpc_method_handler(self._release),
                "Embed": grpc.unary_unary_rpc_method_handler(self._embed),
                "Classify": grpc.unary_unary_rpc_method_handler(self._classify),
                "CountTokens": grpc.unary_unary_rpc_method_handler(self._count_tokens),
                "Infer": grpc.unary_unary_rpc_method_handler(self._infer),
                "Handshake": grpc.unary_unary_rpc_method_handler(self._handshake),
                "ListModels": grpc.unary_unary_rpc_method_handler(self._list_models),
            },
        )

    async def _generate(self, request: bytes, context: Context) -> None:
        await guard(self._counted(self._begin_stream(request, context), context), context)

    async def _resume(self, request: bytes, context: Context) -> None:
        await guard(self._counted(self._go_on(request, context), context), context)

    async def _embed(self, request: bytes, context: Context) -> bytes:
        return await guard(self._counted(self._vectors(request, context), context), context)

    async def _classify(self, request: bytes, context: Context) -> bytes:
        return await guard(self._counted(self._scores(request, context), context), context)

    async def _count_tokens(self, request: bytes, context: Context) -> bytes:
        return await guard(self._counted(self._tokens(request, context), context), context)

    async def _infer(self, request: bytes, context: Context) -> bytes:
        return await guard(self._counted(self._outputs(request, context), context), context)

    async def _release(self, request: bytes, context: Context) -> bytes:
        return await guard(self._let_go(request, context), context)

    async def _handshake(self, request: bytes, context: Context) -> bytes:
        return await guard(self._introduction(request), context)

    async def _list_models(self, request: bytes, context: Context) -> bytes:
        models, remembers = self._roster.descriptions(), round(self._remember * 1000)
        return wire.ListModelsResponse(models=models, place=self._place, remembers_ms=remembers).SerializeToString()

    async def _counted(self, work: Coroutine[object, object, T], context: Context) -> T:
        with closing(work), self._peers.one_of(context):
            return await work

    async def _begin_stream(self, data: bytes, context: Context) -> None:
        request = parse(wire.GenerateRequest, data)
        call = generate_input(request)
        served = self._roster.choose(request.model, Task.GENERATE)
        work = self._work(request, context, lambda demand: generated(served, call, demand, self._place))
        await _deliver(work, 0, context)

    async def _go_on(self, data: bytes, context: Context) -> None:
        request = parse(wire.ResumeRequest, data)
        await _deliver(self._works.resume(caller_of(context), request.stream, request.after), request.after, context)

    async def _let_go(self, data: bytes, context: Context) -> bytes:
        self._works.release(caller_of(context), parse(wire.ReleaseRequest, data).stream)
        return b""

    async def _introduction(self, data: bytes) -> bytes:
        request = parse(wire.HandshakeRequest, data)
        if request.HasField("permitted"):
            refuse_elsewhere(request.permitted, self._place)
        model = self._roster.meant(request.model).description() if request.model else None
        return wire.HandshakeResponse(model=model, place=self._place).SerializeToString()

    async def _vectors(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.EmbedRequest, data)
        call = embed_input(request)
        served = self._roster.choose(request.model, Task.EMBED)
        return await _only(self._work(request, context, lambda demand: embedded(served, call, demand, self._place)))

    async def _scores(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.ClassifyRequest, data)
        call = classify_input(request)
        served = self._roster.choose(request.model, Task.CLASSIFY)
        return await _only(self._work(request, context, lambda demand: classified(served, call, demand, self._place)))

    async def _tokens(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.CountTokensRequest, data)
        call = count_input(request)
        served = self._roster.choose(request.model, Task.COUNT_TOKENS)
        return await _only(self._work(request, context, lambda demand: counted(served, call, demand, self._place)))

    async def _outputs(self, data: bytes, context: Context) -> bytes:
        request = parse(wire.InferRequest, data)
        served, model = self._roster.choose_inference(request.model)
        call = infer_input(request, model)
        return await _only(self._work(request, context, lambda demand: inferred(served, call, demand, self._place)))

    def _work(self, request: Request, context: Context, produce: Produce) -> Work:
        if request.call.HasField("permitted"):
            refuse_elsewhere(request.call.permitted, self._place)
        return self._works.join(caller_of(context), request, produce, _terms(request.call, context))


async def guard(work: Awaitable[T], context: Context) -> T:
    """Await ``work``; end the call with a status of ours where it fails. The library would send an error's text."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets a status
        failed = told(error)
    return await refuse(context, failed)


async def _deliver(work: Work, after: int, context: Context) -> None:
    async with aclosing(work.read(after)) as messages:
        async for message in messages:
            await context.write(message)


async def _only(work: Work) -> bytes:
    async with aclosing(work.read(0)) as messages:
        # To the end, though it is one: work that a reader leaves before its end stops.
        (message,) = [message async for message in messages]
    return message


def _terms(info: wire.CallInfo, context: Context) -> CallContext:
    return call_context(info, context.time_remaining(), asyncio.get_running_loop().time())
