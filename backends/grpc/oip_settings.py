"""What a configuration says of a service that speaks the Open Inference Protocol, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal

from ...core.problem import Problem
from ...core.request import Task
from .chat_format import ChatFormat, ChatFormatName, chat_format


class Dialect(StrEnum):
    """Where servers of the protocol differ: the form of a streamed response, and whether there are any."""

    AUTO = "auto"
    """Asked of the server; where it does not say, told apart message by message."""
    TRITON = "triton"
    DYNAMO = "dynamo"
    MLSERVER = "mlserver"
    KSERVE = "kserve"
    """It cannot stream: a generated text comes whole."""


DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""The protocol's element types, by numpy's names; BYTES holds UTF-8 here."""


@dataclass(frozen=True, slots=True)
class GenerateTensors:
    """Which tensors of a model carry what of a request to generate and of its answer. What has no name is not sent."""

    prompt: Annotated[str, "input, BYTES: the prompt"] = "text_input"
    text: Annotated[str, "output, BYTES: the answer's text"] = "text_output"
    shape: Annotated[tuple[int, ...], "the shape of every input: `[1]`, or `[1, 1]` where the model takes batches"] = (
        1,
    )
    max_output_tokens: Annotated[str | None, "input, INT32: how many tokens the answer may have"] = None
    temperature: Annotated[str | None, "input, FP32"] = None
    top_p: Annotated[str | None, "input, FP32"] = None
    seed: Annotated[str | None, "input, UINT64"] = None
    stop: Annotated[str | None, "input, BYTES: the stop sequences"] = None
    sampling_parameters: Annotated[
        str | None, "input, BYTES: all of these as one JSON object, by the names that vLLM has for them"
    ] = None
    always_true: Annotated[tuple[str, ...], "inputs, BOOL: set with every request, such as `stream`"] = ()
    datatypes: Annotated[Mapping[str, str], "element types of inputs where they differ from those said here"] = field(
        default_factory=lambda: MappingProxyType({})
    )
    finish_reason: Annotated[
        str | None, "output, BYTES: `stop` or `length`; without it, a good end of the call ends the answer"
    ] = None
    prompt_tokens: Annotated[str | None, "output, of whole numbers: how many tokens the prompt had"] = None
    output_tokens: Annotated[str | None, "output, of whole numbers: how many tokens this message adds"] = None
    cumulative: Annotated[bool, "every message holds the whole text so far"] = False


VLLM = GenerateTensors(
    sampling_parameters="sampling_parameters",
    always_true=(
        "stream",
        "exclude_input_in_output",
        "return_finish_reason",
        "return_num_input_tokens",
        "return_num_output_tokens",
    ),
    finish_reason="finish_reason",
    prompt_tokens="num_input_tokens",
    output_tokens="num_output_tokens",
)

TENSORRT_LLM = GenerateTensors(
    shape=(1, 1),
    max_output_tokens="max_tokens",
    temperature="temperature",
    top_p="top_p",
    seed="seed",
    stop="stop_words",
    always_true=("stream",),
)

# Dynamo reads nothing else, and says nothing of what it does not read.
DYNAMO = GenerateTensors(always_true=("streaming",), finish_reason="finish_reason")

ProfileName = Literal["vllm", "tensorrt_llm", "dynamo"]

DISCOVER = "discover"
"""The model is asked for its tensors."""

_PROFILES: dict[ProfileName, GenerateTensors] = {"vllm": VLLM, "tensorrt_llm": TENSORRT_LLM, "dynamo": DYNAMO}


@dataclass(frozen=True, slots=True)
class EmbedTensors:
    """Which tensors of a model carry texts and their vectors."""

    texts: Annotated[str, "input, BYTES: the texts"] = "text"
    vectors: Annotated[str, "output, of floats: a vector for each text"] = "embedding"
    batched: Annotated[bool, "the texts go as `[n, 1]`, as models with a batch dimension take them, not as `[n]`"] = (
        False
    )


@dataclass(frozen=True, slots=True)
class OipSettings:
    """How a service that speaks the Open Inference Protocol is spoken to."""

    dialect: Annotated[Dialect, "whose form of it; asked of the server before the first text"] = Dialect.AUTO
    generate: Annotated[
        ProfileName | Literal["discover"] | GenerateTensors | None,
        "the tensors by which the model generates: a known backend's, those that the model itself names, or your own",
    ] = None
    chat: Annotated[ChatFormatName | ChatFormat, "how a conversation becomes one prompt"] = "plain"
    embed: Annotated[
        Literal["discover"] | EmbedTensors | None,
        "the tensors by which the model embeds: those that the model itself names, or your own",
    ] = None
    typed_contents: Annotated[bool, "send tensors element by element, for servers that cannot read raw bytes"] = False

    @property
    def tasks(self) -> frozenset[Task]:
        """What can be asked of it: to infer always, the rest where its tensors are known."""
        known = {Task.INFER: True, Task.GENERATE: self.generate is not None, Task.EMBED: self.embed is not None}
        return frozenset(task for task, is_known in known.items() if is_known)

    @property
    def discovers(self) -> bool:
        """Whether the model is to be asked for its tensors."""
        return DISCOVER in (self.generate, self.embed)

    def generate_tensors(self) -> GenerateTensors:
        """The tensors by which the model generates; the plain ones where nothing is said, or not yet known."""
        if isinstance(self.generate, GenerateTensors):
            return self.generate
        return GenerateTensors() if self.generate is None or self.generate == "discover" else _PROFILES[self.generate]


def check_oip(settings: OipSettings) -> Iterator[Problem]:
    """What is wrong with the section; paths count from the backend's own."""
    for name in chat_format(settings.chat).unfit():
        mend = "write `{text}` once, where the turn's text goes"
        yield Problem("this turn has no single place for its text", mend, ("oip", "chat", name))
    tensors = settings.generate_tensors()
    for name, datatype in tensors.datatypes.items():
        if datatype not in DATATYPES:
            mend = "write one of " + ", ".join(DATATYPES)
            yield Problem(f"there is no element type {datatype!r}", mend, ("oip", "generate", "datatypes", name))
    if any(length != 1 for length in tensors.shape):
        yield Problem("a request is one element", "write `[1]` or `[1, 1]`", ("oip", "generate", "shape"))
