"""The Open Inference Protocol v2 over the same models, as Triton has it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc
import grpc.aio

from ...backends import CallContext
from ...core.answer import Delta, Finish
from ...core.content import InferInput, Tensor
from ...core.deadline import Deadline
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ...protos.foreign import oip_pb2 as wire
from .answers import Clock, events
from .demand import Demand
from .oip_messages import (
    EMBED,
    PROMPT,
    TextRequest,
    embed_request,
    inputs_of,
    metadata,
    response,
    text_outputs,
    text_request,
)
from .peers import PeerLimit
from .refusals import told
from .requests import LONGEST_CALL, parse
from .served import Roster, Served
from .service import Context, guard

OIP_SERVICE_NAME = "inference.GRPCInferenceService"


class OipService:
    """Answers calls by the models of a roster: tensors as they are, text by the tensors of Triton's vLLM backend.

    The protocol names no caller's stream or key, so what is lost here is lost.
    """

    def __init__(self, roster: Roster, peers: PeerLimit, version: str) -> None:
        self._roster = roster
        self._peers = peers
        self._version = version

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods, for a server."""
        return grpc.method_handlers_generic_handler(
            OIP_SERVICE_NAME,
            {
                "ServerLive": grpc.unary_unary_rpc_method_handler(self._server_live),
                "ServerReady": grpc.unary_unary_rpc_method_handler(self._server_ready),
                "ServerMetadata": grpc.unary_unary_rpc_method_handler(self._server_metadata),
                "ModelReady": grpc.unary_unary_rpc_method_handler(self._model_ready),
                "ModelMetadata": grpc.unary_unary_rpc_method_handler(self._model_metadata),
                "ModelInfer": grpc.unary_unary_rpc_method_handler(self._model_infer),
                "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._model_stream_infer),
            },
        )

    async def _server_live(self, request: bytes, context: Context) -> bytes:
        return wire.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, request: bytes, context: Context) -> bytes:
        return wire.ServerReadyResponse(ready=self._roster.any_ready()).SerializeToString()

    async def _server_metadata(self, request: bytes, context: Context) -> bytes:
        return wire.ServerMetadataResponse(name="edgewise", version=self._version).SerializeToString()

    async def _model_ready(self, request: bytes, context: Context) -> bytes:
        async def ready() -> bytes:
            served = self._roster.meant(parse(wire.ModelReadyRequest, request).name)
            return wire.ModelReadyResponse(ready=served.is_ready()).SerializeToString()

        return await guard(ready(), context)

    async def _model_metadata(self, request: bytes, context: Context) -> bytes:
        async def described() -> bytes:
            name = parse(wire.ModelMetadataRequest, request).name
            return metadata(self._roster.meant(name), name).SerializeToString()

        return await guard(described(), context)

    async def _model_infer(self, request: bytes, context: Context) -> bytes:
        async def answer() -> bytes:
            with self._peers.one_of(context):
                parsed = parse(wire.ModelInferRequest, request)
                # Whole, whether or not it asks for a stream.
                return response(parsed, await self._whole(parsed, _demand(parsed, context))).SerializeToString()

        return await guard(answer(), context)

    async def _model_stream_infer(self, requests: AsyncIterator[bytes], context: Context) -> None:
        writing = asyncio.Lock()

        async def say(message: wire.ModelStreamInferResponse) -> None:
            async with writing:
                await context.write(message.SerializeToString())

        async def answer(data: bytes) -> None:
            parsed = wire.ModelInferRequest()
            try:
                with self._peers.one_of(context):
                    parsed = parse(wire.ModelInferRequest, data)
                    async with aclosing(self._pieces(parsed, _demand(parsed, context))) as pieces:
                        async for piece in pieces:
                            await say(wire.ModelStreamInferResponse(infer_response=piece))
                return
            except Exception as error:  # noqa: BLE001  # one request's failure leaves the stream's others alone
                failed = told(error)
            name_and_id = wire.ModelInferResponse(model_name=parsed.model_name, id=parsed.id)
            await say(wire.ModelStreamInferResponse(error_message=failed.sentence, infer_response=name_and_id))

        async with asyncio.TaskGroup() as answers:
            async for data in requests:
                answers.create_task(answer(data))

    async def _pieces(
        self, request: wire.ModelInferRequest, demand: Demand
    ) -> AsyncGenerator[wire.ModelInferResponse, None]:
        """The responses to one request: several to a text that is wanted piece by piece, else one."""
        inputs = inputs_of(request)
        text = text_request(inputs) if self._generates(request.model_name, inputs) else None
        if text is None or not text.stream:
            yield response(request, await self._whole(request, demand), final=True)
            return
        served = self._roster.choose(request.model_name, Task.GENERATE)
        if text.echo:
            raise AttemptError(
                FailureKind.INVALID_REQUEST, "a stream leaves out the prompt; `exclude_input_in_output` is true"
            )
        async with aclosing(events(served, text.call, demand, Clock())) as said:
            async for event in said:
                if isinstance(event, Delta):
                    yield response(request, text_outputs(text, [event], None), final=False)
                else:
                    yield response(request, text_outputs(text, [], event), final=True)

    async def _whole(self, request: wire.ModelInferRequest, demand: Demand) -> dict[str, Tensor]:
        inputs, name = inputs_of(request), request.model_name
        if self._generates(name, inputs):
            return await self._text(self._roster.choose(name, Task.GENERATE), text_request(inputs), demand)
        if EMBED.texts in inputs and self._can(name, Task.EMBED):
            served = self._roster.choose(name, Task.EMBED)
            async with served.admission.place(demand):
                return {EMBED.vectors: (await served.backend.embed(embed_request(inputs), demand.context)).vectors}
        served, model = self._roster.choose_inference(name)
        async with served.admission.place(demand):
            return dict((await served.backend.infer(InferInput(model, inputs), demand.context)).outputs)

    async def _text(self, served: Served, request: TextRequest, demand: Demand) -> dict[str, Tensor]:
        said: list[Delta] = [Delta(request.echo, 0)]
        async with aclosing(events(served, request.call, demand, Clock())) as stream:
            async for event in stream:
                if isinstance(event, Finish):
                    return text_outputs(request, said, event)
                said.append(event)
        raise AssertionError("a generation ends by its Finish or a failure")

    def _generates(self, name: str, inputs: dict[str, Tensor]) -> bool:
        return PROMPT in inputs and self._can(name, Task.GENERATE)

    def _can(self, name: str, task: Task) -> bool:
        return not name or self._roster.meant(name).can(task)


def _demand(request: wire.ModelInferRequest, context: Context) -> Demand:
    """What goes with a call. The protocol's own timeout is in microseconds."""
    given = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
    remaining = context.time_remaining()
    seconds = min(LONGEST_CALL if remaining is None else remaining, given / 1e6 if given > 0 else LONGEST_CALL)
    return Demand(CallContext(secrets.token_hex(8), Deadline.after(asyncio.get_running_loop().time(), seconds)))
