"""Requests and answers of the Open Inference Protocol, as Triton's backends for language models word them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ...backends import TensorSpec
from ...backends.grpc.oip_settings import VLLM, EmbedTensors
from ...backends.grpc.oip_tensors import DATATYPE_OF, OutputTensor, described, from_wire, strings, texts_of, typed
from ...core.answer import Delta, Finish
from ...core.content import EmbedInput, GenerateInput, Message, Role, Tensor
from ...core.failure import AttemptError, FailureKind
from ...core.request import Task
from ...protos.foreign import oip_pb2 as wire
from .served import Served

EMBED = EmbedTensors()
PROMPT = VLLM.prompt

_RETURNS = {"return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"}
_GENERATE_INPUTS = {PROMPT: "BYTES", "sampling_parameters": "BYTES", "stream": "BOOL"} | dict.fromkeys(
    ("exclude_input_in_output", *sorted(_RETURNS)), "BOOL"
)
_GENERATE_OUTPUTS = {
    VLLM.text: "BYTES",
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}
_PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "stop")


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request to generate. ``stream``: piece by piece. ``returns`` are the outputs wanted beside the text."""

    call: GenerateInput
    stream: bool
    echo: str
    """What goes before the answer: the prompt, where the request asks for it."""
    returns: frozenset[str]


def inputs_of(request: wire.ModelInferRequest) -> dict[str, Tensor]:
    """The request's tensors. Raises `AttemptError` (invalid request, unsupported), as everything here."""
    if any("shared_memory_region" in tensor.parameters for tensor in request.inputs):
        raise AttemptError(FailureKind.UNSUPPORTED, "there is no shared memory here; send tensors in the message")
    if any("classification" in output.parameters for output in request.outputs):
        raise AttemptError(FailureKind.UNSUPPORTED, "tensors are not classified here; ask for them as they are")
    try:
        inputs = from_wire(request.inputs, request.raw_input_contents)
    except ValueError as error:
        reason = str(error)
    else:
        if inputs:
            return inputs
        reason = "there are no input tensors"
    raise _invalid(reason)


def text_request(inputs: Mapping[str, Tensor]) -> TextRequest:
    """What to generate, by `text_input`, `stream`, `sampling_parameters` and the like."""
    if not inputs.keys() <= _GENERATE_INPUTS.keys():
        raise _invalid(f"a model that generates takes {', '.join(_GENERATE_INPUTS)}, and nothing else")
    prompt = _text(inputs, PROMPT)
    if not prompt:
        raise _invalid(f"there is nothing to answer: `{PROMPT}` is empty")
    return TextRequest(
        GenerateInput((Message(Role.USER, prompt),), **_sampling(_text(inputs, "sampling_parameters"))),
        stream=_flag(inputs, "stream", otherwise=False),
        echo="" if _flag(inputs, "exclude_input_in_output", otherwise=True) else prompt,
        returns=frozenset(name for name in _RETURNS if _flag(inputs, name, otherwise=False)),
    )


def embed_request(inputs: Mapping[str, Tensor]) -> EmbedInput:
    """The texts to embed: a tensor of BYTES, `[n]` or `[n, 1]`."""
    if inputs.keys() != {EMBED.texts}:
        raise _invalid(f"a model that embeds takes `{EMBED.texts}`, and nothing else")
    return EmbedInput(tuple(_texts(inputs, EMBED.texts)))


def text_outputs(request: TextRequest, said: list[Delta], finish: Finish | None) -> dict[str, Tensor]:
    """The tensors that say so much of an answer; ``finish`` with its end."""
    text = "".join(delta.text for delta in said)
    outputs = {VLLM.text: _bytes(text)}
    if "return_finish_reason" in request.returns:
        outputs["finish_reason"] = _bytes("None" if finish is None else finish.reason.value)
    if "return_num_input_tokens" in request.returns:
        outputs["num_input_tokens"] = _count(0 if finish is None else finish.usage.prompt_tokens)
    if "return_num_output_tokens" in request.returns:
        outputs["num_output_tokens"] = _count(sum(delta.tokens for delta in said))
    return outputs


def response(
    request: wire.ModelInferRequest, outputs: Mapping[str, Tensor], *, final: bool | None = None
) -> wire.ModelInferResponse:
    """The answer with these tensors, those asked for alone where the request names some.

    Raw, unless all that came was typed. ``final`` says of one of several whether it is the last.
    """
    wanted = [output.name for output in request.outputs] or list(outputs)
    if not set(wanted) <= outputs.keys():
        raise _invalid("an output is asked for that there is not")
    answer = wire.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    if final is not None:
        answer.parameters["triton_final_response"].bool_param = final
    raw = bool(request.raw_input_contents) or any(outputs[name].dtype == "float16" for name in wanted)
    for name in wanted:
        if raw:
            answer.outputs.append(described(OutputTensor, name, outputs[name]))
            answer.raw_output_contents.append(outputs[name].data)
        else:
            answer.outputs.append(typed(OutputTensor, name, outputs[name]))
    return answer


def metadata(served: Served, name: str) -> wire.ModelMetadataResponse:
    """What a model takes and gives. One that infers and does not tell its tensors has only its name."""
    answer = wire.ModelMetadataResponse(name=name, versions=["1"], platform="edgewise")
    if served.can(Task.GENERATE):
        answer.inputs.extend(_described(_GENERATE_INPUTS, [1]))
        answer.outputs.extend(_described(_GENERATE_OUTPUTS, [1]))
    elif served.can(Task.EMBED):
        answer.inputs.extend(_described({EMBED.texts: "BYTES"}, [-1]))
        answer.outputs.extend(_described({EMBED.vectors: "FP32"}, [-1, -1]))
    elif served.can(Task.INFER) and (signature := served.signature(name)) is not None:
        answer.inputs.extend(map(_specified, signature.inputs))
        answer.outputs.extend(map(_specified, signature.outputs))
    return answer


def _specified(tensor: TensorSpec) -> wire.ModelMetadataResponse.TensorMetadata:
    shape = [-1 if axis is None else axis for axis in tensor.shape]
    datatype = DATATYPE_OF[tensor.dtype]
    return wire.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=datatype, shape=shape)


def _described(datatypes: Mapping[str, str], shape: list[int]) -> list[wire.ModelMetadataResponse.TensorMetadata]:
    kind = wire.ModelMetadataResponse.TensorMetadata
    return [kind(name=name, datatype=datatype, shape=shape) for name, datatype in datatypes.items()]


def _sampling(text: str) -> dict[str, Any]:
    """The options in a JSON object, by the names of `GenerateInput`. Triton's own examples write numbers as strings."""
    if not text:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given.keys() <= set(_PARAMETERS):
        raise _invalid(f"`sampling_parameters` is a JSON object with some of {', '.join(_PARAMETERS)}")
    options: dict[str, Any] = {}
    if "max_tokens" in given:
        options["max_output_tokens"] = _number(given["max_tokens"], int, 1, 2**31)
    if "temperature" in given:
        options["temperature"] = _number(given["temperature"], float, 0.0, 1e6)
    if "top_p" in given:
        options["top_p"] = _number(given["top_p"], float, 1e-9, 1.0)
    if given.get("seed") is not None:
        options["seed"] = _number(given["seed"], int, -(2**63), 2**63 - 1)
    if given.get("stop") is not None:
        stop = [given["stop"]] if isinstance(given["stop"], str) else given["stop"]
        if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
            raise _invalid("`stop` is a text or a list of texts, none of them empty")
        options["stop"] = tuple(stop)
    return options


N = TypeVar("N", int, float)


def _number(value: object, kind: type[N], least: float, most: float) -> N:
    try:
        number = kind(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not least <= number <= most:
        raise _invalid("a number of `sampling_parameters` is none, or out of its range")
    return number


def _text(inputs: Mapping[str, Tensor], name: str) -> str:
    texts = _texts(inputs, name) if name in inputs else [""]
    if len(texts) != 1:
        raise _invalid(f"`{name}` holds one text a request")
    return texts[0]


def _texts(inputs: Mapping[str, Tensor], name: str) -> list[str]:
    try:
        return texts_of(inputs[name])
    except ValueError:
        pass
    raise _invalid(f"`{name}` is a tensor of BYTES")


def _flag(inputs: Mapping[str, Tensor], name: str, *, otherwise: bool) -> bool:
    if name not in inputs:
        return otherwise
    if inputs[name].dtype != "bool" or len(inputs[name].data) != 1:
        raise _invalid(f"`{name}` is one BOOL")
    return inputs[name].data != b"\0"


def _bytes(text: str) -> Tensor:
    return Tensor("string", (1,), strings(text))


def _count(number: int) -> Tensor:
    return Tensor("uint32", (1,), struct.pack("<I", number))


def _invalid(sentence: str) -> AttemptError:
    return AttemptError(FailureKind.INVALID_REQUEST, sentence)
