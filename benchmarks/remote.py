"""What our adapters cost: each protocol beside its bare stub, in one run.

Run: ``python benchmarks/remote.py [--quick]``. The server is a process of its own on loopback, and says bytes that were
made before. The bare stub is the same channel with the generated messages, read in a plain loop; for OpenAI's API it
is httpx, line by line. Each pair is measured in turns, so that a machine that changes speed changes both; the figures
to quote are the ratios. Beside the time that passed stands the processor's time in the client's process, which a busy
machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import httpx
import psutil

from edgewise.backends import Backend, CallContext
from edgewise.backends.grpc import GrpcSettings
from edgewise.backends.grpc.backend import GrpcBackend
from edgewise.backends.grpc.channel import open_channel
from edgewise.backends.grpc.oip_settings import EmbedTensors, OipSettings
from edgewise.backends.grpc.oip_tensors import strings
from edgewise.backends.grpc.settings import ProtocolName
from edgewise.backends.openai import OpenaiSettings
from edgewise.backends.openai.backend import OpenaiBackend
from edgewise.core.content import EmbedInput, GenerateInput, Message
from edgewise.core.deadline import Deadline
from edgewise.protos.foreign import gemini_pb2, oip_pb2, vertex_pb2
from edgewise.protos.v1 import model_service_pb2 as own

TOKENS = 256
STREAMS = 64
MODEL = "projects/p/locations/europe-west4/publishers/google/models/m"
HELD = "hold"
"""A prompt whose stream stops after its first message, to be looked at while it is open."""


@dataclass(frozen=True)
class Wire:
    """A protocol's methods, the messages of its stream and its one answer, and what a bare stub needs."""

    stream_path: str
    unary_path: str
    stream: tuple[bytes, ...]
    unary: bytes
    streamed: Any  # generated message types
    answered: Any
    request: Callable[[str], bytes]


def _edgewise() -> Wire:
    deltas = [own.GenerateResponse(delta=own.Delta(text="word ", tokens=1)) for _ in range(TOKENS)]
    finish = own.Finish(reason=own.FINISH_REASON_STOP, usage=own.Usage(prompt_tokens=1, output_tokens=TOKENS))
    vectors = own.Tensor(dtype="float32", shape=[1, 4], data=bytes(16))
    return Wire(
        "/edgewise.v1.ModelService/Generate",
        "/edgewise.v1.ModelService/Embed",
        tuple(each.SerializeToString() for each in (*deltas, own.GenerateResponse(finish=finish))),
        own.EmbedResponse(vectors=vectors).SerializeToString(),
        own.GenerateResponse,
        own.EmbedResponse,
        lambda text: own.GenerateRequest(messages=[own.Message(role=own.ROLE_USER, text=text)]).SerializeToString(),
    )


def _oip() -> Wire:
    def said(reason: str) -> bytes:
        response = oip_pb2.ModelInferResponse(model_name="m", model_version="1")
        for name, text in (("text_output", "word "), ("finish_reason", reason)):
            response.outputs.add(name=name, datatype="BYTES", shape=[1])
            response.raw_output_contents.append(strings(text))
        return oip_pb2.ModelStreamInferResponse(infer_response=response).SerializeToString()

    vectors = oip_pb2.ModelInferResponse(model_name="m")
    vectors.outputs.add(name="embedding", datatype="FP32", shape=[1, 4])
    vectors.raw_output_contents.append(bytes(16))

    def request(text: str) -> bytes:
        message = oip_pb2.ModelInferRequest(model_name="m", raw_input_contents=[strings(text)])
        message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
        return message.SerializeToString()

    return Wire(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/inference.GRPCInferenceService/ModelInfer",
        (*(said("None") for _ in range(TOKENS)), said("stop")),
        vectors.SerializeToString(),
        oip_pb2.ModelStreamInferResponse,
        oip_pb2.ModelInferResponse,
        request,
    )


def _google(wire: Any, service: str, unary_path: str, unary: Any, answered: Any) -> Wire:
    def said(reason: int) -> bytes:
        response = wire.GenerateContentResponse(model_version="m")
        candidate = response.candidates.add(finish_reason=reason)
        candidate.content.parts.add(text="word ")
        return bytes(response.SerializeToString())

    def request(text: str) -> bytes:
        message = wire.GenerateContentRequest(model=MODEL)
        message.contents.add(role="user").parts.add(text=text)
        return bytes(message.SerializeToString())

    return Wire(
        f"/{service}/StreamGenerateContent",
        unary_path,
        (*(said(0) for _ in range(TOKENS)), said(1)),
        unary.SerializeToString(),
        wire.GenerateContentResponse,
        answered,
        request,
    )


def _gemini() -> Wire:
    service = "google.ai.generativelanguage.v1beta.GenerativeService"
    vectors = gemini_pb2.BatchEmbedContentsResponse(embeddings=[gemini_pb2.ContentEmbedding(values=[0.0] * 4)])
    path = f"/{service}/BatchEmbedContents"
    return _google(gemini_pb2, service, path, vectors, gemini_pb2.BatchEmbedContentsResponse)


def _vertex() -> Wire:
    service = "google.cloud.aiplatform.v1.PredictionService"
    predicted = vertex_pb2.PredictResponse()
    embeddings = predicted.predictions.add().struct_value.fields["embeddings"].struct_value
    for _ in range(4):
        embeddings.fields["values"].list_value.values.add(number_value=0.0)
    return _google(vertex_pb2, service, f"/{service}/Predict", predicted, vertex_pb2.PredictResponse)


WIRES: dict[ProtocolName, Wire] = {
    ProtocolName.EDGEWISE: _edgewise(),
    ProtocolName.OIP: _oip(),
    ProtocolName.GEMINI: _gemini(),
    ProtocolName.VERTEX: _vertex(),
}


class _Answering(grpc.GenericRpcHandler):
    """Every method of every protocol, from the bytes above."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        for wire in WIRES.values():
            if details.method == wire.stream_path:
                return grpc.stream_stream_rpc_method_handler(self._streaming(wire))
            if details.method == wire.unary_path:
                return grpc.unary_unary_rpc_method_handler(self._unary(wire))
        return None

    def _streaming(self, wire: Wire) -> Any:
        async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            async for request in requests:
                for message in wire.stream:
                    await context.write(message)
                    if HELD.encode() in request:
                        await asyncio.Event().wait()
                return

        return stream

    def _unary(self, wire: Wire) -> Any:
        async def unary(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return wire.unary

        return unary


def _chunk(text: str | None, reason: str | None) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    data = b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_CHUNKS = (*(_chunk("word ", None) for _ in range(TOKENS)), _chunk(None, "stop"), b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
_VECTORS = json.dumps({"data": [{"index": 0, "embedding": [0.0] * 4}], "model": "m"}).encode()


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            body = await reader.readexactly(length)
            if "/embeddings" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_VECTORS) + _VECTORS)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for chunk in _CHUNKS:
                    writer.write(chunk)
                    await writer.drain()
                    if HELD.encode() in body:
                        await reader.readexactly(1)  # until the client has gone
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve() -> None:
    """The server's process: print the addresses, serve until standard input ends."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([_Answering()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    http = await asyncio.start_server(_http, "127.0.0.1", 0)
    print(f"127.0.0.1:{port} http://127.0.0.1:{http.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


Stream = Callable[[str], AsyncIterator[Any]]
"""Begins a stream for a prompt; what comes is read and thrown away."""


@dataclass(frozen=True)
class Side:
    """One way to ask: bare, or ours."""

    stream: Stream
    unary: Callable[[], Awaitable[object]]
    close: Callable[[], Awaitable[None]]


def bare(protocol: str, target: str, url: str) -> Side:
    """The stub that anybody would write."""
    if protocol == "openai":
        return _bare_http(url)
    wire = WIRES[ProtocolName(protocol)]
    channel = open_channel(GrpcSettings(target), 1.0)
    stream: grpc.aio.UnaryStreamMultiCallable[bytes, Any] = channel.unary_stream(
        wire.stream_path, response_deserializer=wire.streamed.FromString
    )
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, Any] = channel.unary_unary(
        wire.unary_path, response_deserializer=wire.answered.FromString
    )

    async def read(text: str) -> AsyncIterator[Any]:
        async for message in stream(wire.request(text), timeout=60.0):
            yield message

    async def ask() -> object:
        return await unary(wire.request("a"), timeout=60.0)

    return Side(read, ask, lambda: channel.close())


def _bare_http(url: str) -> Side:
    client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60.0)
    body = {"model": "m", "stream": True}

    async def read(text: str) -> AsyncIterator[Any]:
        messages = [{"role": "user", "content": text}]
        async with client.stream("POST", "/chat/completions", json={**body, "messages": messages}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])

    async def ask() -> object:
        return (await client.post("/embeddings", json={"model": "m", "input": ["a"]})).json()

    return Side(read, ask, client.aclose)


def ours(protocol: str, target: str, url: str) -> Side:
    """The backend, as the router calls it."""
    backend: Backend
    if protocol == "openai":
        backend = OpenaiBackend("b", OpenaiSettings(url, "m", "m"))
    else:
        name = ProtocolName(protocol)
        oip = OipSettings(generate="vllm", embed=EmbedTensors()) if name is ProtocolName.OIP else None
        backend = GrpcBackend("b", GrpcSettings(target, name, MODEL, oip=oip))

    def context() -> CallContext:
        return CallContext("r", Deadline(asyncio.get_running_loop().time() + 60.0))

    def read(text: str) -> AsyncIterator[Any]:
        return backend.generate(GenerateInput((Message.user(text),), max_output_tokens=TOKENS), context())

    return Side(read, lambda: backend.embed(EmbedInput(("a",)), context()), backend.stop)


async def drain(side: Side) -> None:
    async for _ in side.stream("count"):
        pass


CLOCKS = (time.perf_counter, time.process_time)


async def timed(work: Callable[[], Awaitable[object]]) -> tuple[float, ...]:
    """Seconds by each of the clocks."""
    started = [clock() for clock in CLOCKS]
    await work()
    return tuple(clock() - at for clock, at in zip(CLOCKS, started, strict=True))


async def compare(what: str, works: tuple[Callable[[], Awaitable[object]], ...], runs: int, per: int) -> None:
    """Print the medians of both, in turns, and the median ratio of the pairs, by each of the clocks."""
    for work in works:
        await work()
        await work()
    pairs = [[await timed(work) for work in works] for _ in range(runs)]
    told = []
    for at, clock in enumerate(("", "processor ")):
        plain, adapted = (statistics.median(each[side][at] for each in pairs) * 1e6 / per for side in (0, 1))
        ratio = statistics.median(after[at] / before[at] for before, after in pairs)
        told.append(f"{clock}bare {plain:,.0f} µs, ours {adapted:,.0f} µs, ratio {ratio:.2f}")
    print(f"  {what}: {'; '.join(told)}", flush=True)


async def measure(protocol: str, addresses: tuple[str, str], runs: int) -> None:
    print(protocol)
    sides = bare(protocol, *addresses), ours(protocol, *addresses)

    def together(side: Side) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.gather(*(drain(side) for _ in range(STREAMS)))

    await compare("unary call", (sides[0].unary, sides[1].unary), runs * 20, 1)
    await compare("streamed token", (lambda: drain(sides[0]), lambda: drain(sides[1])), runs, TOKENS)
    many = f"token of {STREAMS} streams at once"
    await compare(many, (together(sides[0]), together(sides[1])), max(3, runs // 10), STREAMS * TOKENS)
    for side in sides:
        await side.close()


async def weigh(which: str, protocol: str, target: str, url: str) -> None:
    """Print how many KiB each open stream adds to a process."""
    side = (bare if which == "bare" else ours)(protocol, target, url)
    await drain(side)
    before = psutil.Process().memory_info().rss
    streams = [side.stream(HELD) for _ in range(STREAMS)]
    for stream in streams:
        await anext(aiter(stream))
    print((psutil.Process().memory_info().rss - before) / STREAMS / 1024)
    await side.close()


def weights(protocol: str, addresses: tuple[str, str]) -> None:
    figures = []
    for which in ("bare", "ours"):
        command = [sys.executable, __file__, "--weigh", which, protocol, *addresses]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        figures.append(float(ended.stdout.split()[-1]))
    print(
        f"  memory of each of {STREAMS} open streams: bare {figures[0]:.0f} KiB, ours {figures[1]:.0f} KiB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs: a look, no figure to quote")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weigh", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return asyncio.run(serve())
    if arguments.weigh:
        return asyncio.run(weigh(*arguments.weigh))
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    target, url = server.stdout.readline().split()
    addresses = target, url
    try:
        for protocol in [*WIRES, "openai"]:
            asyncio.run(measure(protocol, addresses, runs=5 if arguments.quick else 50))
            weights(protocol, addresses)
    finally:
        server.stdin.close()
        server.wait(10)
    return None


if __name__ == "__main__":
    main()
