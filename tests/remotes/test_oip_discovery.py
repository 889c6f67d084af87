"""What is asked of a server before the first text, and what follows from the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from edgewise.backends import CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.oip_discovery import embed_tensors_of, generate_tensors_of
from edgewise.backends.grpc.oip_settings import DYNAMO, TENSORRT_LLM, VLLM, EmbedTensors, OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.grpc.wire_protocol import ReportedFailure
from edgewise.core.answer import Delta
from edgewise.core.content import GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Task
from edgewise.protos.foreign import oip_pb2 as wire

from . import oip_server
from .oip_server import Dialect, OipServer

CALL = GenerateInput((Message.user("plover"),), max_output_tokens=3, seed=4, stop=("9",))


@asynccontextmanager
async def asked(dialect: Dialect, oip: OipSettings, model: str = "llm") -> AsyncIterator[tuple[GrpcBackend, OipServer]]:
    server = OipServer(dialect)
    await server.start()
    backend = GrpcBackend("oip", GrpcSettings(server.target, ProtocolName.OIP, model, oip=oip))
    try:
        yield backend, server
    finally:
        await backend.stop()
        await server.stop()


def context() -> CallContext:
    return CallContext("r", Deadline(asyncio.get_running_loop().time() + 10))


async def text(backend: GrpcBackend) -> str:
    events = [event async for event in backend.generate(CALL, context())]
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize(
    "dialect",
    [oip_server.TRITON_VLLM, oip_server.TENSORRT_LLM, oip_server.OLDER_TENSORRT_LLM, oip_server.DYNAMO],
    ids=["vllm", "tensorrt_llm", "older tensorrt_llm", "dynamo"],
)
async def test_a_models_tensors_are_discovered_once_and_fit(dialect: Dialect) -> None:
    async with asked(dialect, OipSettings(generate="discover")) as (backend, server):
        assert (await text(backend)).startswith("1 2 3 ")
        assert await text(backend)
        assert backend.capabilities.tasks == {Task.GENERATE, Task.INFER}
        # Strict servers took all of it, and what they do not know was not sent.
        sent = {each.name for each in server.seen[0].inputs}
        assert sent <= set(dialect.inputs)
        if dialect is oip_server.OLDER_TENSORRT_LLM:
            assert {"random_seed", "max_tokens", "stop_words"} <= sent


def metadata(dialect: Dialect) -> wire.ModelMetadataResponse:
    return OipServer(dialect).described()


def test_each_profile_is_what_its_backend_says_of_itself() -> None:
    assert generate_tensors_of(metadata(oip_server.TRITON_VLLM)) == VLLM
    found = generate_tensors_of(metadata(oip_server.TENSORRT_LLM))
    assert replace(found, datatypes={}) == TENSORRT_LLM
    found = generate_tensors_of(metadata(oip_server.DYNAMO))
    assert found == DYNAMO


@pytest.mark.parametrize(
    ("oip", "says"),
    [(OipSettings(generate="discover"), "`oip.generate`"), (OipSettings(embed="discover"), "`oip.embed`")],
)
def test_a_model_whose_tensors_say_nothing_is_named_with_the_mend(oip: OipSettings, says: str) -> None:
    silent = wire.ModelMetadataResponse(name="llm")
    silent.inputs.add(name="pixels", datatype="FP32", shape=[1, 3])
    read = generate_tensors_of if oip.generate else embed_tensors_of
    with pytest.raises(ReportedFailure) as caught:
        read(silent)
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert says in caught.value.sentence


def test_an_embedding_model_is_discovered() -> None:
    model = wire.ModelMetadataResponse()
    model.inputs.add(name="sentences", datatype="BYTES", shape=[-1, 1])
    model.outputs.add(name="vectors", datatype="FP16", shape=[-1, 384])
    assert embed_tensors_of(model) == EmbedTensors("sentences", "vectors", batched=True)


async def test_what_cannot_be_discovered_fails_before_any_content_leaves() -> None:
    async with asked(oip_server.TRITON_VLLM, OipSettings(generate="discover"), "nobody") as (backend, server):
        with pytest.raises(AttemptError) as caught:
            await text(backend)
        assert caught.value.kind is FailureKind.MODEL_UNAVAILABLE
        assert "`model`" in caught.value.sentence
        assert server.seen == []


async def test_a_server_that_is_down_is_asked_again_later() -> None:
    async with asked(oip_server.KSERVE, OipSettings(generate=replace(VLLM, sampling_parameters=None))) as (
        backend,
        server,
    ):
        await server.stop()
        with pytest.raises(AttemptError) as caught:
            await text(backend)
        assert caught.value.kind is FailureKind.UNREACHABLE
        await server.start()
        assert (await text(backend)).startswith("1 2 3")
