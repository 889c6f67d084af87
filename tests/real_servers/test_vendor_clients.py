"""Vendors' own clients against our test servers, and their own schemas beside ours: both sides held to one truth."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.tensors import to_array
from edgewise.core.answer import Delta, Finish
from edgewise.core.content import CountTokensInput, EmbedInput, GenerateInput, Message
from edgewise.core.settings import Secret
from edgewise.protos.foreign import gemini_pb2, oip_pb2, vertex_pb2

from ..remotes.google_server import EMBED_MODELS, KEY, MODELS, GoogleServer
from .conftest import within
from .servers import environment_of

server = "google"
"""What is tested here, for the results."""

HERE = Path(__file__).parent

FINISH = {"length": "MAX_TOKENS", "stop": "STOP"}


async def run(environment: Path, script: str, *arguments: str, stdin: bytes = b"") -> Any:
    """What a script of this folder prints, run by another environment's Python."""
    process = await asyncio.create_subprocess_exec(
        environment / "bin" / "python",
        HERE / script,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(stdin), 120)
    assert process.returncode == 0, errors.decode()[-2000:]
    return json.loads(output.decode().splitlines()[-1])


@pytest.mark.parametrize("protocol", [ProtocolName.GEMINI, ProtocolName.VERTEX])
async def test_googles_client_reads_and_sends_what_ours_does(protocol: ProtocolName) -> None:
    environment = environment_of("EDGEWISE_GOOGLE")
    server = GoogleServer(protocol)
    await server.start()
    models = (MODELS[protocol], EMBED_MODELS[protocol])
    try:
        theirs = await run(environment, "google_client.py", protocol, server.target, KEY, *models)
        sent_by_them = list(server.seen)
        server.seen.clear()
        assert await ours(server, *models) == {key: theirs[key] for key in theirs if key != "whole"}
        assert theirs["whole"] == "".join(theirs["pieces"])
        # And the requests: what ours says more is how it samples.
        streamed, counted = sent_by_them[0], sent_by_them[-1]
        for name in ("temperature", "top_p", "candidate_count"):
            server.seen[0].generation_config.ClearField(name)
        assert server.seen[0] == streamed
        if protocol is ProtocolName.GEMINI:
            counted.generate_content_request.ClearField("generation_config")
        assert server.seen[-1] == counted
        assert server.seen[1] == sent_by_them[2]
    finally:
        await server.stop()


async def ours(server: GoogleServer, model: str, embed_model: str) -> dict[str, Any]:
    settings = GrpcSettings(server.target, server.protocol, model, credentials=Secret(KEY))
    backend = GrpcBackend("ours", settings)
    embedder = GrpcBackend("ours", GrpcSettings(server.target, server.protocol, embed_model, credentials=Secret(KEY)))
    call = GenerateInput(
        (Message.system("be short"), Message.user("count, please")), max_output_tokens=4, logprobs=1, seed=7
    )
    try:
        *deltas, finish = [event async for event in backend.generate(call, within(10))]
        vectors = await embedder.embed(EmbedInput(("a b", "c")), within(10))
        tokens = await backend.count_tokens(CountTokensInput(call.messages), within(10))
    finally:
        await backend.stop()
        await embedder.stop()
    pieces = [event for event in deltas if isinstance(event, Delta)]
    assert isinstance(finish, Finish)
    first = pieces[0].logprobs[0]
    return {
        "pieces": [event.text for event in pieces],
        "finish": FINISH[finish.reason],
        "usage": [finish.usage.prompt_tokens, finish.usage.output_tokens],
        "logprobs": [first.logprob, first.top[0][0]],
        "model": finish.model,
        "vectors": to_array(vectors.vectors).tolist(),
        "tokens": tokens,
    }


SCHEMAS = [
    ("EDGEWISE_GOOGLE", "google.ai.generativelanguage_v1beta", gemini_pb2.DESCRIPTOR),
    ("EDGEWISE_GOOGLE", "google.cloud.aiplatform_v1", vertex_pb2.DESCRIPTOR),
    ("EDGEWISE_MLSERVER", "mlserver.grpc.dataplane_pb2", oip_pb2.DESCRIPTOR),
    ("EDGEWISE_KSERVE", "kserve.protocol.grpc.grpc_predict_v2_pb2", oip_pb2.DESCRIPTOR),
]


@pytest.mark.parametrize(("environment", "module", "schema"), SCHEMAS, ids=[module for _, module, _ in SCHEMAS])
async def test_our_part_of_a_schema_is_the_vendors(environment: str, module: str, schema: FileDescriptor) -> None:
    known = dict(_described(schema))
    assert len(known) > 10
    assert await run(environment_of(environment), "vendor_schema.py", module, stdin=json.dumps(known).encode()) == []


def _described(schema: FileDescriptor) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Every message and enum by its full name, with the number and type of each field."""
    for message in schema.message_types_by_name.values():
        if not message.name.startswith(("Edgewise", "ModelStreamInferResponse")):  # ours, and Triton's alone
            yield from _message(message)


def _message(message: Descriptor) -> Iterator[tuple[str, dict[str, list[int]]]]:
    yield message.full_name, {field.name: [field.number, field.type] for field in message.fields}
    for enum in message.enum_types:
        yield _enum(enum)
    for inner in message.nested_types:
        if not inner.GetOptions().map_entry:
            yield from _message(inner)


def _enum(enum: EnumDescriptor) -> tuple[str, dict[str, list[int]]]:
    return enum.full_name, {value.name: [value.number, 0] for value in enum.values}
