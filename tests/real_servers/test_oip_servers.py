"""The Open Inference Protocol against MLServer and Triton themselves."""

from __future__ import annotations

import asyncio

import numpy
import pytest

from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_settings import Dialect, GenerateTensors, OipSettings
from edgewise.backends.tensors import to_array, to_tensor
from edgewise.core.answer import Delta, Finish, FinishReason, Usage
from edgewise.core.content import GenerateInput, InferInput, Message
from edgewise.core.failure import AttemptError, FailureKind

from .conftest import TRITON_TYPES, Connect, within

OWN = OipSettings(generate=GenerateTensors())
VLLM = OipSettings(generate="vllm")


async def words(backend: GrpcBackend, text: str, seconds: float = 10.0) -> list[str | Finish]:
    call = GenerateInput((Message.user(text),), max_output_tokens=5)
    return [
        event.text if isinstance(event, Delta) else event async for event in backend.generate(call, within(seconds))
    ]


async def failure_of(backend: GrpcBackend, text: str, seconds: float = 10.0) -> FailureKind:
    with pytest.raises(AttemptError) as caught:
        await words(backend, text, seconds)
    assert text not in repr(caught.value)
    return caught.value.kind


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "uint32", "uint64", *TRITON_TYPES])
async def test_mlserver_echoes_tensors(mlserver: str, connect: Connect, dtype: str, typed: bool) -> None:
    if typed and dtype == "float16":
        pytest.skip("half floats have no typed contents")
    backend = connect(mlserver, "", OipSettings(typed_contents=typed))
    array = numpy.array([[0, 1, 100], [7, 5, 3]]).astype(dtype)
    inference = await backend.infer(InferInput("echo", {"x": to_tensor(array)}), within(10))
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
async def test_mlserver_streams(mlserver: str, connect: Connect, dialect: Dialect) -> None:
    backend = connect(mlserver, "echo", OipSettings(dialect, GenerateTensors()))
    assert await words(backend, "hello") == [
        "you ",
        "said ",
        "hello\n\n",
        Finish(FinishReason.STOP, Usage(0, 3), "echo"),
    ]


@pytest.mark.parametrize("dialect", [Dialect.AUTO, Dialect.TRITON])
async def test_triton_streams_as_vllm_does(triton: str, connect: Connect, dialect: Dialect) -> None:
    backend = connect(triton, "llm", OipSettings(dialect, "vllm"))
    finish = Finish(FinishReason.STOP, Usage(3, 3), "llm:1")
    assert await words(backend, "hello") == ["you ", "said ", "hello\n\n", finish]
    assert (await words(backend, "endless"))[-1] == Finish(FinishReason.LENGTH, Usage(3, 5), "llm:1")


async def test_failures_in_mid_stream(mlserver: str, triton: str, connect: Connect) -> None:
    assert await failure_of(connect(mlserver, "echo", OWN), "break here") is FailureKind.INTERNAL
    assert await failure_of(connect(triton, "llm", VLLM), "break here") is FailureKind.INTERNAL


async def test_unknown_models(mlserver: str, triton: str, connect: Connect) -> None:
    for target, oip in ((mlserver, OWN), (triton, VLLM)):
        backend = connect(target, "nobody", oip)
        assert await failure_of(backend, "hello") is FailureKind.MODEL_UNAVAILABLE
        with pytest.raises(AttemptError) as caught:
            await backend.infer(InferInput("nobody", {"x": to_tensor(numpy.zeros(1))}), within(10))
        assert caught.value.kind is FailureKind.UNKNOWN_MODEL


async def test_settings_that_do_not_fit_triton(triton: str, connect: Connect) -> None:
    assert (
        await failure_of(connect(triton, "llm", OipSettings(generate="tensorrt_llm")), "hello")
        is FailureKind.UNSUPPORTED
    )
    one_message = OipSettings(Dialect.KSERVE, "vllm")
    assert await failure_of(connect(triton, "llm", one_message), "hello") is FailureKind.UNSUPPORTED


async def test_triton_stops_by_the_deadline_and_when_a_stream_is_closed(triton: str, connect: Connect) -> None:
    backend = connect(triton, "llm", VLLM)
    clock = asyncio.get_running_loop().time
    call = GenerateInput((Message.user("endless"),), max_output_tokens=10_000)
    began = clock()
    with pytest.raises(AttemptError) as caught:
        async for _ in backend.generate(call, within(0.3)):
            pass
    assert caught.value.kind is FailureKind.TIMED_OUT
    assert clock() - began < 1.0
    events = backend.generate(call, within(60))
    await anext(events)
    await events.aclose()
    # The model runs one call at a time: this one is answered because those were stopped.
    assert (await words(backend, "hello"))[0] == "you "


async def test_triton_refuses_wrong_tensors(triton: str, connect: Connect) -> None:
    backend = connect(triton, "", OipSettings())
    with pytest.raises(AttemptError) as caught:
        await backend.infer(InferInput("float32", {"q": to_tensor(numpy.zeros((1, 1)))}), within(10))
    assert caught.value.kind is FailureKind.INVALID_REQUEST
