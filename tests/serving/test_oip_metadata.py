"""What a model takes and gives, told over the Open Inference Protocol, is what it does take and give."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewise.backends.grpc.oip_settings import OipSettings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.core.content import EmbedInput, InferInput, Tensor
from edgewise.core.request import Task
from edgewise.protos.foreign import oip_pb2 as wire

from .conftest import CALL, Connect, Scripted, Serve, collect, within
from .onnx_models import triage


async def metadata(address: str, name: str) -> wire.ModelMetadataResponse:
    async with grpc.aio.insecure_channel(address) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata"
        )
        answer = await ask(wire.ModelMetadataRequest(name=name).SerializeToString(), timeout=5)
    return wire.ModelMetadataResponse.FromString(answer)


async def test_a_model_tells_its_own_tensors_and_takes_what_they_say(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    async with triage(tmp_path) as sorter:
        server = await serve(sorter)
        for name in ("triage", "sorter"):
            told = await metadata(server.address, name)
            assert told.name == name
            assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
                ("features", "FP32", [-1, 3]),
                ("ids", "INT64", [2]),
                ("words", "BYTES", [-1]),
            ]
            assert [(each.name, each.datatype, list(each.shape)) for each in told.outputs] == [
                ("doubled", "FP32", [-1, 3]),
                ("as_double", "FP64", [2]),
                ("same", "BYTES", [-1]),
            ]
        remote = connect(server, protocol=ProtocolName.OIP, model="triage")
        given = {
            "features": Tensor("float32", (2, 3), bytes(24)),
            "ids": Tensor("int64", (2,), bytes(16)),
            "words": Tensor("string", (1,), b"\x02\0\0\0hi"),
        }
        outputs = (await remote.infer(InferInput("triage", given), within(20))).outputs
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in outputs.items()} == {
        "doubled": ("float32", (2, 3)),
        "as_double": ("float64", (2,)),
        "same": ("string", (1,)),
    }


async def test_a_model_that_tells_no_tensors_has_none_made_up(serve: Serve) -> None:
    server = await serve(Scripted("m", frozenset({Task.INFER})))
    told = await metadata(server.address, "m")
    assert (told.name, len(told.inputs), len(told.outputs)) == ("m", 0, 0)


@pytest.mark.parametrize("task", [Task.GENERATE, Task.EMBED])
async def test_our_own_client_discovers_what_is_told(task: Task, serve: Serve, connect: Connect) -> None:
    server = await serve(Scripted("m", frozenset({task})))
    settings = OipSettings(generate="discover") if task is Task.GENERATE else OipSettings(embed="discover")
    remote = connect(server, protocol=ProtocolName.OIP, model="m", oip=settings, tasks=(task,))
    if task is Task.GENERATE:
        assert len(await collect(remote.generate(CALL, within(5)))) == 3
    else:
        assert (await remote.embed(EmbedInput(("a", "b")), within(5))).vectors.shape == (2, 2)
