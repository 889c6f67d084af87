"""The Open Inference Protocol as its servers speak it, by their protos and sources; strict about what they are sent."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from edgewise.backends.grpc.oip_settings import DATATYPES
from edgewise.backends.grpc.oip_tensors import OutputTensor, described, from_wire, strings, texts_of, typed
from edgewise.core.content import Tensor
from edgewise.protos.foreign import oip_pb2 as wire

from .counting import BrokenError, FullError, TooLongError, vector
from .service import Context, Handlers, Service

ANSWER = "<|im_start|>assistant\n"
"""Where the answer begins, in the chat format `chatml`."""

Shape = tuple[int, ...]
Request = wire.ModelInferRequest
Response = wire.ModelInferResponse


@dataclass(frozen=True)
class Dialect:
    """How one server differs from the others."""

    name: str
    inputs: Mapping[str, tuple[str, tuple[Shape, ...]]]
    """Each tensor by which its models generate: its type, and the shapes that are taken. ``0`` is any length."""
    required: frozenset[str]
    streams: bool = True
    wrapped: bool = True
    ignores_unknown: bool = False
    raw: bool = True
    """It answers with raw contents."""
    finish_reason: bool = True
    counts: bool = False
    metadata: bool = True
    """It answers `ServerMetadata`."""
    unknown_model: grpc.StatusCode = grpc.StatusCode.NOT_FOUND
    batched: bool = False


_ONE: tuple[Shape, ...] = ((1,),)
_BATCH: tuple[Shape, ...] = ((1, 1),)

TRITON_VLLM = Dialect(
    "triton",
    {
        "text_input": ("BYTES", _ONE),
        "stream": ("BOOL", _ONE),
        "sampling_parameters": ("BYTES", _ONE),
        "exclude_input_in_output": ("BOOL", _ONE),
        "return_finish_reason": ("BOOL", _ONE),
        "return_cumulative_logprob": ("BOOL", _ONE),
        "return_num_input_tokens": ("BOOL", _ONE),
        "return_num_output_tokens": ("BOOL", _ONE),
    },
    frozenset({"text_input"}),
    counts=True,
)

TENSORRT_LLM = Dialect(
    "triton",
    {
        "text_input": ("BYTES", _BATCH),
        "max_tokens": ("INT32", _BATCH),
        "stop_words": ("BYTES", ((1, 0),)),
        "bad_words": ("BYTES", ((1, 0),)),
        "temperature": ("FP32", _BATCH),
        "top_k": ("INT32", _BATCH),
        "top_p": ("FP32", _BATCH),
        "seed": ("UINT64", _BATCH),
        "stream": ("BOOL", _BATCH),
    },
    frozenset({"text_input", "max_tokens"}),
    finish_reason=False,
    batched=True,
)

OLDER_TENSORRT_LLM = Dialect(
    "triton",
    {
        **{name: kind for name, kind in TENSORRT_LLM.inputs.items() if name not in ("max_tokens", "seed", "top_k")},
        "max_tokens": ("UINT32", _BATCH),
        "random_seed": ("UINT64", _BATCH),
        "top_k": ("UINT32", _BATCH),
    },
    TENSORRT_LLM.required,
    finish_reason=False,
    batched=True,
)

DYNAMO = Dialect(
    "dynamo",
    {"text_input": ("BYTES", ((1,), (1, 1))), "streaming": ("BOOL", _ONE), "stream": ("BOOL", _ONE)},
    frozenset({"text_input"}),
    ignores_unknown=True,
    raw=False,
    metadata=False,
)

MLSERVER = Dialect(
    "mlserver",
    {"text_input": ("BYTES", _ONE), "max_tokens": ("INT32", _ONE)},
    frozenset({"text_input"}),
    wrapped=False,
    raw=False,
    finish_reason=False,
    ignores_unknown=True,
)

KSERVE = Dialect(
    "kserve",
    {"text_input": ("BYTES", _ONE), "max_tokens": ("INT32", _ONE)},
    frozenset({"text_input"}),
    streams=False,
    wrapped=False,
    ignores_unknown=True,
)


class RefusedError(Exception):
    """The server ends the call with a status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class OipServer(Service):
    """One server with one model, `llm`, that generates, embeds and echoes."""

    dialect: Dialect
    seen: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handlers(self) -> Handlers:
        methods: dict[str, Any] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(self.model_metadata),
        }
        if self.dialect.metadata:
            methods["ServerMetadata"] = grpc.unary_unary_rpc_method_handler(self.server_metadata)
        if self.dialect.streams:
            methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.stream)
        return {"inference.GRPCInferenceService": methods}

    async def server_metadata(self, message: bytes, context: Context) -> bytes:
        return wire.ServerMetadataResponse(name=self.dialect.name, version="2.0").SerializeToString()

    async def model_metadata(self, message: bytes, context: Context) -> bytes:
        asked = wire.ModelMetadataRequest.FromString(message)
        if asked.name != "llm":
            await context.abort(self.dialect.unknown_model, f"Request for unknown model: '{asked.name}' is not found")
        return self.described().SerializeToString()

    def described(self) -> wire.ModelMetadataResponse:
        """What it says of its model."""
        described = wire.ModelMetadataResponse(name="llm", versions=["1"], platform=self.dialect.name)
        for name, (datatype, shapes) in self.dialect.inputs.items():
            shape = [
                -1 if length == 0 or (self.dialect.batched and at == 0) else length
                for at, length in enumerate(shapes[0])
            ]
            described.inputs.add(name=name, datatype=datatype, shape=shape)
        described.outputs.add(name="text_output", datatype="BYTES", shape=[-1])
        if self.dialect.finish_reason:
            described.outputs.add(name="finish_reason", datatype="BYTES", shape=[-1])
        if self.dialect.counts:
            described.outputs.add(name="num_input_tokens", datatype="UINT32", shape=[1])
            described.outputs.add(name="num_output_tokens", datatype="UINT32", shape=[-1])
        return described

    async def infer(self, message: bytes, context: Context) -> bytes:
        request = self._read(message)
        try:
            self._know(request)
            inputs = self._tensors(request)
            if "text" in inputs:
                rows = [vector(text) for text in texts_of(inputs["text"])]
                data = b"".join(struct.pack("<3f", *row) for row in rows)
                outputs = {"embedding": Tensor("float32", (len(rows), 3), data)}
            elif "text_input" in inputs:
                if self.dialect.streams and self.dialect.wrapped:
                    text = "ModelInfer RPC doesn't support models with decoupled transaction policy"
                    raise RefusedError(grpc.StatusCode.UNIMPLEMENTED, text)
                pieces = [piece async for piece in self._generate(inputs)]
                outputs = {
                    "text_output": Tensor("string", (1,), strings("".join(text for text, _ in pieces))),
                    "finish_reason": Tensor("string", (1,), strings(pieces[-1][1] or "")),
                }
            elif set(inputs) == {"x"}:
                outputs = inputs
            else:
                name = min(inputs, default="")
                raise RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"unexpected inference input '{name}' for model 'llm'"
                )
            return self._response(request, outputs, echo_raw=bool(request.raw_input_contents)).SerializeToString()
        except RefusedError as refused:
            code, text = refused.code, str(refused)
        except BrokenError as broken:
            code, text = grpc.StatusCode.INTERNAL, f"Stub process is not healthy: {broken}"
        await context.abort(code, text)
        raise AssertionError("unreachable")

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        async for message in messages:
            request = self._read(message)
            try:
                self._know(request)
                inputs = self._tensors(request)
                self._check_generation(inputs, request)
                async for piece, reason in self._generate(inputs):
                    await context.write(self._piece(request, piece, reason))
            except RefusedError as refused:
                code, text = refused.code, str(refused)
            except BrokenError as broken:
                code, text = grpc.StatusCode.INTERNAL, f"Stub process is not healthy: {broken}"
            else:
                continue
            if self.dialect.name == "triton":  # a good status, and the error in its place
                await context.write(wire.ModelStreamInferResponse(error_message=text).SerializeToString())
            else:
                await context.abort(code, text)

    def _read(self, message: bytes) -> Request:
        request = Request.FromString(message)
        self.seen.append(request)
        return request

    def _know(self, request: Request) -> None:
        if request.model_name != "llm":
            text = f"Request for unknown model: '{request.model_name}' is not found"
            raise RefusedError(self.dialect.unknown_model, text)

    def _tensors(self, request: Request) -> dict[str, Tensor]:
        for each in request.inputs:
            if each.datatype not in DATATYPES:
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "unexpected datatype")
        try:
            return from_wire(request.inputs, request.raw_input_contents)
        except ValueError:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape") from None

    def _check_generation(self, inputs: Mapping[str, Tensor], request: Request) -> None:
        """What these servers refuse: a missing tensor, an unknown one, a wrong type, a wrong shape."""
        datatypes = {each.name: each.datatype for each in request.inputs}
        for name in self.dialect.required - set(inputs):
            text = f"expected {len(self.dialect.required)} inputs but got {len(inputs)}: '{name}' is missing"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
        for name, tensor in inputs.items():
            if name not in self.dialect.inputs:
                if self.dialect.ignores_unknown:
                    continue
                text = f"unexpected inference input '{name}' for model 'llm'"
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
            datatype, shapes = self.dialect.inputs[name]
            if datatypes[name] != datatype:
                text = (
                    f"inference input '{name}' data-type is '{datatypes[name]}', but model 'llm' expects '{datatype}'"
                )
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
            if not any(_fits(tensor.shape, shape) for shape in shapes):
                text = f"unexpected shape for input '{name}' for model 'llm'"
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)

    async def _generate(self, inputs: Mapping[str, Tensor]) -> AsyncIterator[tuple[str, str | None]]:
        (prompt,) = texts_of(inputs["text_input"])
        limit, stop = 16, list[str]()  # what a server takes that was told nothing
        if "sampling_parameters" in inputs and "sampling_parameters" in self.dialect.inputs:
            given = json.loads(texts_of(inputs["sampling_parameters"])[0])
            unknown = given.keys() - {"max_tokens", "temperature", "top_p", "seed", "stop"}
            if unknown:
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "Unexpected keyword argument")
            limit, stop = given["max_tokens"], given.get("stop", [])
        if "max_tokens" in inputs and "max_tokens" in self.dialect.inputs:
            limit = int.from_bytes(inputs["max_tokens"].data, "little")
        if "stop_words" in inputs and "stop_words" in self.dialect.inputs:
            stop = texts_of(inputs["stop_words"])
        begun = prompt.rpartition(ANSWER)[2] if ANSWER in prompt else ""
        try:
            async for piece in self.model.words(prompt, limit, begun=begun, stop=stop):
                yield piece
        except FullError:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size") from None
        except TooLongError:
            text = "The prompt is longer than the maximum model length of 4096"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text) from None

    def _piece(self, request: Request, piece: str, reason: str | None) -> bytes:
        shape = (1, 1) if self.dialect.batched else (1,)
        outputs = {"text_output": Tensor("string", shape, strings(piece))}
        if self.dialect.name == "dynamo":  # it says a reason, or an empty tensor
            reasons = [reason] if reason else []
            outputs["finish_reason"] = Tensor("string", (len(reasons),), strings(*reasons))
        elif self.dialect.finish_reason:
            outputs["finish_reason"] = Tensor("string", (1,), strings(reason or "None"))
        if self.dialect.counts:
            outputs["num_input_tokens"] = Tensor("uint32", (1,), struct.pack("<I", 7))
            outputs["num_output_tokens"] = Tensor("uint32", (1,), struct.pack("<I", 1))
        response = self._response(request, outputs, echo_raw=self.dialect.raw)
        if not self.dialect.wrapped:
            return response.SerializeToString()
        return wire.ModelStreamInferResponse(infer_response=response).SerializeToString()

    def _response(self, request: Request, outputs: Mapping[str, Tensor], *, echo_raw: bool) -> Response:
        response = Response(model_name=request.model_name, model_version="1", id=request.id)
        for name, tensor in outputs.items():
            if echo_raw:
                response.outputs.append(described(OutputTensor, name, tensor))
                response.raw_output_contents.append(tensor.data)
            else:
                response.outputs.append(typed(OutputTensor, name, tensor))
        return response


def _fits(shape: Shape, taken: Shape) -> bool:
    return len(shape) == len(taken) and all(wanted in (0, length) for length, wanted in zip(shape, taken, strict=True))
