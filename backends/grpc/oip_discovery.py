"""What a server of the Open Inference Protocol tells of itself and of a model, and what follows for our tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ...core.failure import FailureKind
from ...protos.foreign import oip_pb2 as wire
from .oip_settings import DYNAMO, TENSORRT_LLM, VLLM, Dialect, EmbedTensors, GenerateTensors
from .wire_protocol import ReportedFailure

_DIALECTS = {"triton": Dialect.TRITON, "mlserver": Dialect.MLSERVER, "kserve": Dialect.KSERVE}

_FLOATS = {"FP16", "FP32", "FP64"}


def dialect_of(metadata: bytes | None) -> Dialect:
    """The dialect of a server by its `ServerMetadata`, where it has that; streams tell the rest apart."""
    if metadata is None:
        return Dialect.AUTO
    name = wire.ServerMetadataResponse.FromString(metadata).name.lower()
    return _DIALECTS.get(name, Dialect.AUTO)


def generate_tensors_of(model: wire.ModelMetadataResponse) -> GenerateTensors:
    """How a model generates, by the names of its tensors: a known backend's, as far as this model has them.

    Raises `ReportedFailure` for a model whose tensors say nothing.
    """
    inputs: dict[str | None, wire.ModelMetadataResponse.TensorMetadata] = {each.name: each for each in model.inputs}
    outputs: set[str | None] = {each.name for each in model.outputs}
    known = next((each for each in (VLLM, TENSORRT_LLM, DYNAMO) if _marks(each) <= inputs.keys()), None)
    if known is None or known.text not in outputs:
        raise _unclear("generate")
    if "random_seed" in inputs:  # what older backends of TensorRT-LLM call it
        known = replace(known, seed="random_seed")
    datatypes = {}
    for name in _named(known.max_output_tokens, known.temperature, known.top_p, known.seed):
        if name in inputs:
            datatypes[name] = inputs[name].datatype
    return replace(
        known,
        shape=(1,) * len(inputs[known.prompt].shape),
        max_output_tokens=_if_in(inputs, known.max_output_tokens),
        temperature=_if_in(inputs, known.temperature),
        top_p=_if_in(inputs, known.top_p),
        seed=_if_in(inputs, known.seed),
        stop=_if_in(inputs, known.stop),
        always_true=tuple(name for name in known.always_true if name in inputs),
        datatypes=datatypes,
        finish_reason=_if_in(outputs, "finish_reason"),
        prompt_tokens=_if_in(outputs, known.prompt_tokens),
        output_tokens=_if_in(outputs, known.output_tokens),
    )


def embed_tensors_of(model: wire.ModelMetadataResponse) -> EmbedTensors:
    """How a model embeds: it has one input of texts, and one output of floats. Raises `ReportedFailure` otherwise."""
    texts = [each for each in model.inputs if each.datatype == "BYTES"]
    vectors = [each for each in model.outputs if each.datatype in _FLOATS]
    if len(texts) != 1 or len(model.inputs) != 1 or len(vectors) != 1:
        raise _unclear("embed")
    return EmbedTensors(texts[0].name, vectors[0].name, batched=len(texts[0].shape) == 2)


def _marks(tensors: GenerateTensors) -> set[str]:
    """The inputs by which a backend's models are known."""
    own = tensors.sampling_parameters or tensors.max_output_tokens
    return {tensors.prompt, own} if own is not None else {tensors.prompt, *tensors.always_true}


def _named(*names: str | None) -> Iterable[str]:
    return (name for name in names if name is not None)


def _if_in(known: Collection[str | None], name: str | None) -> str | None:
    return name if name in known else None


def _unclear(key: str) -> ReportedFailure:
    sentence = f"has a model whose tensors do not say how it can {key}; name them under `oip.{key}`"
    return ReportedFailure(FailureKind.UNSUPPORTED, sentence)
