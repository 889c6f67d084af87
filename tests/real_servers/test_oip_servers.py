"""What MLServer, Triton and KServe do beyond the contract: every type of tensor, both forms of a stream, misfits."""

from __future__ import annotations

import numpy
import pytest

from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import Dialect, GenerateTensors, OipSettings
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import GenerateInput, InferInput, Message
from edgewise.core.failure import AttemptError, FailureKind

from .conftest import Connect, within
from .servers import TRITON_TYPES

OWN = GenerateTensors(max_output_tokens="max_tokens", finish_reason="finish_reason")


async def words(backend: GrpcBackend) -> list[str | Finish]:
    call = GenerateInput((Message.user("hello"),), max_output_tokens=3)
    return [event.text if isinstance(event, Delta) else event async for event in backend.generate(call, within(10))]


async def failure_of(backend: GrpcBackend) -> FailureKind:
    with pytest.raises(AttemptError) as caught:
        await words(backend)
    return caught.value.kind


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "uint32", "uint64", *TRITON_TYPES])
async def test_mlserver_echoes_tensors(mlserver: str, connect: Connect, dtype: str, typed: bool) -> None:
    if typed and dtype == "float16":
        pytest.skip("half floats have no typed contents")
    backend = connect(mlserver, "", OipSettings(typed_contents=typed))
    array = numpy.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    inference = await backend.infer(InferInput("llm", {"x": to_tensor(array)}), within(10))
    assert (to_array(inference.outputs["x"]) == array).all()


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("dtype", TRITON_TYPES)
async def test_triton_echoes_tensors(triton: str, connect: Connect, dtype: str, typed: bool) -> None:
    if typed and dtype == "float16":
        pytest.skip("half floats have no typed contents")
    backend = connect(triton, "", OipSettings(typed_contents=typed))
    array = numpy.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    inference = await backend.infer(InferInput(dtype, {"x": to_tensor(array)}), within(10))
    assert (to_array(inference.outputs["x"]) == array).all()


@pytest.mark.parametrize("dialect", [Dialect.AUTO, Dialect.MLSERVER])
async def test_mlserver_streams_bare_responses(mlserver: str, connect: Connect, dialect: Dialect) -> None:
    finish = Finish(FinishReason.LENGTH, Usage(0, 3), "llm")
    assert await words(connect(mlserver, "llm", OipSettings(dialect, OWN))) == ["1 ", "2 ", "3 ", finish]


@pytest.mark.parametrize("dialect", [Dialect.AUTO, Dialect.TRITON])
async def test_triton_streams_wrapped_ones(triton: str, connect: Connect, dialect: Dialect) -> None:
    finish = Finish(FinishReason.LENGTH, Usage(3, 3), "llm:1")
    assert await words(connect(triton, "llm", OipSettings(dialect, "vllm"))) == ["1 ", "2 ", "3 ", finish]


async def test_settings_that_do_not_fit_triton(triton: str, connect: Connect) -> None:
    for misfit in (OipSettings(generate="tensorrt_llm"), OipSettings(Dialect.KSERVE, "vllm")):
        assert await failure_of(connect(triton, "llm", misfit)) is FailureKind.UNSUPPORTED


async def test_triton_refuses_wrong_tensors(triton: str, connect: Connect) -> None:
    backend = connect(triton, "", OipSettings())
    for array in ({"q": numpy.zeros((1, 1), numpy.float32)}, {"x": numpy.zeros(1, numpy.float32)}):
        tensors = {name: to_tensor(value) for name, value in array.items()}
        with pytest.raises(AttemptError) as caught:
            await backend.infer(InferInput("float32", tensors), within(10))
        assert caught.value.kind is FailureKind.INVALID_REQUEST
