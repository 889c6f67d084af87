"""The client's side of the Open Inference Protocol v2 (`inference.GRPCInferenceService`).

Triton, MLServer, KServe and Dynamo serve it. It carries tensors and nothing else: no usage, finish reason or
log-probabilities. Models that generate put those into tensors of their own, which the settings name.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence

from ...core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent, Inference, Usage
from ...core.content import EmbedInput, GenerateInput, InferInput, Tensor
from ...core.failure import FailureKind
from ...core.request import Task
from ...protos.foreign import oip_pb2 as wire
from ..backend import CallContext
from .chat_format import chat_format
from .oip_discovery import dialect_of, embed_tensors_of, generate_tensors_of
from .oip_settings import DATATYPES, DISCOVER, Dialect, EmbedTensors, GenerateTensors, OipSettings
from .oip_tensors import InputTensor, Outputs, as_vectors, described, from_wire, strings, typed
from .settings import GrpcSettings
from .tensor_messages import checked
from .wire_protocol import Metadata, ReportedFailure, StreamReader, WireProtocol, bearer

_SERVICE = "/inference.GRPCInferenceService"

_REASONS = {"stop": FinishReason.STOP, "eos_token": FinishReason.STOP, "length": FinishReason.LENGTH}
_BARE = {Dialect.MLSERVER: True, Dialect.KSERVE: True, Dialect.TRITON: False, Dialect.DYNAMO: False}
"""Whether a dialect's streamed responses come without a wrapper."""

_STILL_RUNNING = {"", "None", "null"}

_SIGNS: tuple[tuple[re.Pattern[str], FailureKind], ...] = tuple(
    (re.compile(sign, re.IGNORECASE), kind)
    for sign, kind in (
        (r"unknown model|model .{0,200}not found|no available versions|model .{0,200}not ready|"
         r"failed to find model|is not at ready state", FailureKind.MODEL_UNAVAILABLE),
        (r"maximum queue size|too many requests|rate limit", FailureKind.OVERLOADED),
        (r"request timeout expired|deadline", FailureKind.TIMED_OUT),
        (r"longer than the maximum model length|maximum context length|exceeds? (the )?max(imum)? .{0,40}length",
         FailureKind.CONTEXT_LENGTH),
        (r"decoupled", FailureKind.UNSUPPORTED),
    )
)  # fmt: skip
"""Signs in the texts of Triton, MLServer, KServe and Dynamo, whose status codes say little."""

_WRONG_TENSORS = re.compile(
    r"unexpected (inference )?(input|shape|datatype)|data-type|expected \d+ inputs", re.IGNORECASE
)


class OipProtocol(WireProtocol):
    """Tensors in, tensors out."""

    embed_path = infer_path = f"{_SERVICE}/ModelInfer"
    continues = True

    def __init__(self, settings: GrpcSettings) -> None:
        super().__init__(settings)
        self._oip = settings.oip or OipSettings()
        self._tensors = self._oip.generate_tensors()
        self._embed_tensors = self._oip.embed if isinstance(self._oip.embed, EmbedTensors) else EmbedTensors()
        self._chat = chat_format(self._oip.chat)
        self._speak(self._oip.dialect)

    def _speak(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.generate_path = f"{_SERVICE}/{'ModelInfer' if dialect is Dialect.KSERVE else 'ModelStreamInfer'}"

    def questions(self) -> Sequence[tuple[str, bytes]]:
        questions = []
        if self._oip.dialect is Dialect.AUTO:
            questions.append((f"{_SERVICE}/ServerMetadata", b""))
        if self._oip.discovers:
            about = wire.ModelMetadataRequest(name=self.model)
            questions.append((f"{_SERVICE}/ModelMetadata", about.SerializeToString()))
        return questions

    def learn(self, answers: Sequence[bytes | None]) -> None:
        if self._oip.dialect is Dialect.AUTO:
            self._speak(dialect_of(answers[0]))
        if not self._oip.discovers:
            return
        if answers[-1] is None:
            raise ReportedFailure(FailureKind.UNSUPPORTED, "does not tell a model's tensors; name them under `oip`")
        model = wire.ModelMetadataResponse.FromString(answers[-1])
        if self._oip.generate == DISCOVER:
            self._tensors = generate_tensors_of(model)
        if self._oip.embed == DISCOVER:
            self._embed_tensors = embed_tensors_of(model)

    def metadata(self, credentials: str | None, path: str) -> Metadata:
        return bearer(credentials)

    def judge(self, task: Task, code: str, details: str) -> FailureKind | None:
        if code in ("DEADLINE_EXCEEDED", "CANCELLED", "UNAUTHENTICATED", "PERMISSION_DENIED"):
            return None
        if code == "UNAVAILABLE" and "failed to connect" in details:
            return None
        return _sign(task, details)

    def encode_generate(self, call: GenerateInput, context: CallContext, remaining: float) -> bytes:
        if call.response_format is not None or call.logprobs is not None:
            raise ValueError("this protocol carries neither response formats nor log-probabilities")
        return self._request(
            self.model, _generate_inputs(self._tensors, self._chat.prompt(call.messages), call), context
        )

    def generate_reader(self, call: GenerateInput) -> StreamReader:
        return _TextReader(self._dialect, self._tensors, call.max_output_tokens)

    def encode_embed(self, call: EmbedInput, context: CallContext, remaining: float) -> bytes:
        tensors = self._embed_tensors
        shape = (len(call.texts), 1) if tensors.batched else (len(call.texts),)
        return self._request(self.model, {tensors.texts: Tensor("string", shape, strings(*call.texts))}, context)

    def decode_embed(self, message: bytes) -> Embeddings:
        response = wire.ModelInferResponse.FromString(message)
        outputs = from_wire(response.outputs, response.raw_output_contents)
        return Embeddings(as_vectors(outputs.get(self._embed_tensors.vectors)), model=_name(response))

    def encode_infer(self, call: InferInput, context: CallContext, remaining: float) -> bytes:
        return self._request(call.model or self.model, call.inputs, context)

    def decode_infer(self, message: bytes) -> Inference:
        response = wire.ModelInferResponse.FromString(message)
        return Inference(from_wire(response.outputs, response.raw_output_contents), _name(response))

    def _request(self, model: str, inputs: Mapping[str, Tensor], context: CallContext) -> bytes:
        request = wire.ModelInferRequest(model_name=model, id=context.request_id)
        for name, tensor in inputs.items():
            # Bytes that do not fit their shape have crashed Triton's Python backend.
            checked(tensor.dtype, tensor.shape, tensor.data)
            if self._oip.typed_contents:
                request.inputs.append(typed(InputTensor, name, tensor))
            else:
                request.inputs.append(described(InputTensor, name, tensor))
                request.raw_input_contents.append(tensor.data)
        return request.SerializeToString()


class _TextReader(StreamReader):
    """Reads text out of tensors."""

    def __init__(self, dialect: Dialect, tensors: GenerateTensors, max_output_tokens: int) -> None:
        self._bare = _BARE.get(dialect)
        self._tensors = tensors
        self._max_output_tokens = max_output_tokens
        self._model = ""
        self._so_far = ""
        self._prompt_tokens = 0
        self._output_tokens = 0

    def read(self, message: bytes) -> Iterable[GenerateEvent]:
        if self._bare is None:
            self._bare = _is_bare(message)  # a server does not change its form within a stream
        response = _response(self._bare, message)
        outputs = Outputs(response.outputs, response.raw_output_contents)
        if not self._model:
            self._model = _name(response)
        events: list[GenerateEvent] = []
        text = self._new_text(outputs)
        self._prompt_tokens = _count(outputs, self._tensors.prompt_tokens, self._prompt_tokens)
        tokens = _count(outputs, self._tensors.output_tokens, 1 if text else 0)
        self._output_tokens += tokens
        if text:
            events.append(Delta(text, tokens))
        reason = self._reason(outputs)
        if reason is not None:
            events.append(self._finish(reason))
        return events

    def end(self) -> Iterable[GenerateEvent]:
        if self._tensors.finish_reason is not None or not self._model:
            return ()
        # The server ended the call well, and says no more than that.
        used_up = self._output_tokens >= self._max_output_tokens
        return (self._finish(FinishReason.LENGTH if used_up else FinishReason.STOP),)

    def _finish(self, reason: FinishReason) -> Finish:
        return Finish(reason, Usage(self._prompt_tokens, self._output_tokens), self._model)

    def _new_text(self, outputs: Outputs) -> str:
        texts = outputs.texts(self._tensors.text)
        if texts is None:
            return ""
        text = "".join(texts)
        if not self._tensors.cumulative:
            return text
        if not text.startswith(self._so_far):
            raise ValueError("a text that should only grow has changed")
        new, self._so_far = text[len(self._so_far) :], text
        return new

    def _reason(self, outputs: Outputs) -> FinishReason | None:
        said = "".join(outputs.texts(self._tensors.finish_reason) or ())
        if said in _STILL_RUNNING:
            return None
        if said == "content_filter":
            raise ReportedFailure(FailureKind.CONTENT_FILTER)
        if said not in _REASONS:  # the engine gave up: aborted, cancelled, out of memory
            raise ReportedFailure(FailureKind.INTERNAL)
        return _REASONS[said]


def _response(bare: bool, message: bytes) -> wire.ModelInferResponse:
    """The response in a message of either form."""
    if bare:
        return wire.ModelInferResponse.FromString(message)
    streamed = wire.ModelStreamInferResponse.FromString(message)
    if streamed.error_message:
        raise ReportedFailure(_sign(Task.GENERATE, streamed.error_message) or FailureKind.INTERNAL)
    return streamed.infer_response


def _is_bare(message: bytes) -> bool:
    """Whether a response came unwrapped: wrapped, it has an error and a response, and nothing besides them."""
    either = wire.EdgewiseEitherResponse.FromString(message)
    return bool(either.id or either.parameters or either.outputs or either.raw_output_contents)


def _sign(task: Task, text: str) -> FailureKind | None:
    for sign, kind in _SIGNS:
        if sign.search(text):
            return kind
    if task is not Task.INFER and _WRONG_TENSORS.search(text):
        return FailureKind.UNSUPPORTED  # the tensors are ours: the settings do not fit the model
    return None


def _generate_inputs(tensors: GenerateTensors, prompt: str, call: GenerateInput) -> dict[str, Tensor]:
    inputs = {tensors.prompt: _strings(tensors.shape, prompt)}
    for name, datatype, value in (
        (tensors.max_output_tokens, "INT32", call.max_output_tokens),
        (tensors.temperature, "FP32", call.temperature),
        (tensors.top_p, "FP32", call.top_p),
        (tensors.seed, "UINT64", call.seed),
    ):
        if name is not None and value is not None:
            inputs[name] = _scalar(tensors, tensors.datatypes.get(name, datatype), value)
    if tensors.stop is not None and call.stop:
        inputs[tensors.stop] = _strings((*tensors.shape[:-1], len(call.stop)), *call.stop)
    if tensors.sampling_parameters is not None:
        inputs[tensors.sampling_parameters] = _strings(tensors.shape, _sampling_parameters(call))
    for name in tensors.always_true:
        inputs[name] = Tensor("bool", tensors.shape, b"\1")
    return inputs


def _strings(shape: tuple[int, ...], *texts: str) -> Tensor:
    return Tensor("string", shape, strings(*texts))


def _scalar(tensors: GenerateTensors, datatype: str, value: float) -> Tensor:
    codes = {"INT32": "i", "INT64": "q", "UINT32": "I", "UINT64": "Q", "FP32": "f", "FP64": "d", "FP16": "e"}
    if datatype not in codes:
        raise ValueError("a number cannot be sent in this type")
    whole = "INT" in datatype
    try:
        data = struct.pack("<" + codes[datatype], int(value) if whole else value)
    except (struct.error, OverflowError):
        raise ValueError("a number is out of its type's range") from None
    return Tensor(DATATYPES[datatype], tensors.shape, data)


def _sampling_parameters(call: GenerateInput) -> str:
    given: dict[str, object] = {
        "max_tokens": call.max_output_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
    }
    if call.seed is not None:
        given["seed"] = call.seed
    if call.stop:
        given["stop"] = call.stop
    return json.dumps(given)


def _count(outputs: Outputs, name: str | None, otherwise: int) -> int:
    tensor = outputs.tensor(name)
    if tensor is None:
        return otherwise
    if "int" not in tensor.dtype:
        raise ValueError("a count is no whole number")
    return int.from_bytes(tensor.data[: len(tensor.data) // max(1, math.prod(tensor.shape))], "little")


def _name(response: wire.ModelInferResponse) -> str:
    return f"{response.model_name}:{response.model_version}" if response.model_version else response.model_name
