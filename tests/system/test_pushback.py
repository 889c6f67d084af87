"""When a server says how long to wait, or says nothing: what it then sees of the router, over the true stack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.protos.v1.status_details_pb2 import RetryInfo, StatusDetail, StatusDetails
from edgewise.router import AsyncRouter, EdgewiseError, Overloaded
from edgewise.router.config import loads

CONFIGURATION = """
version: 1
backends:
  cloud: {{kind: grpc, target: {target}, location: {{process_in: [NL]}}, works_offline: true}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  resilience: {{retry: {{max_attempts: 3, initial_backoff: 20ms, max_backoff: 40ms}}}}
"""
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def details(value: bytes) -> tuple[str, bytes]:
    status = StatusDetails(
        details=[
            StatusDetail(type_url="type.googleapis.com/google.rpc.Help"),
            StatusDetail(type_url=RETRY_INFO, value=value),
        ]
    )
    return "grpc-status-details-bin", status.SerializeToString()


def retry_info(seconds: int, nanos: int = 0) -> tuple[str, bytes]:
    return details(RetryInfo(retry_delay=RetryInfo.Delay(seconds=seconds, nanos=nanos)).SerializeToString())


class Refusing:
    """A server that refuses its first calls, and remembers when each came."""

    def __init__(self, refusals: int, code: grpc.StatusCode, *trailing: tuple[str, str | bytes]) -> None:
        self._refusals = refusals
        self._code = code
        self._trailing = trailing
        self.came: list[float] = []

    async def serve(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self.came.append(asyncio.get_running_loop().time())
        if len(self.came) <= self._refusals:
            await context.abort(self._code, "no", self._trailing)
        await context.write(wire.GenerateResponse(delta=wire.Delta(text="yes", tokens=1)).SerializeToString())
        finish = wire.Finish(reason=wire.FINISH_REASON_STOP)
        await context.write(wire.GenerateResponse(finish=finish).SerializeToString())

    @property
    def waits(self) -> list[float]:
        """Seconds from each call to the next."""
        return [later - earlier for earlier, later in zip(self.came, self.came[1:], strict=False)]


@asynccontextmanager
async def routed_to(handler: Refusing, folder: Path) -> AsyncIterator[AsyncRouter]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Generate": grpc.unary_stream_rpc_method_handler(handler.serve)
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("edgewise.v1.ModelService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with AsyncRouter(loads(CONFIGURATION.format(target=f"127.0.0.1:{port}"), folder)) as router:
            yield router
    finally:
        await server.stop(0)


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize(
    ("trailing", "least"),
    [(retry_info(0, 300_000_000), 0.3), (("grpc-retry-pushback-ms", "300"), 0.3), (None, 0.0)],
    ids=["RetryInfo", "pushback", "nothing said"],
)
async def test_a_wait_that_the_server_asks_for_is_kept(
    tmp_path: Path, code: grpc.StatusCode, trailing: tuple[str, str | bytes] | None, least: float
) -> None:
    handler = Refusing(1, code, *(() if trailing is None else (trailing,)))
    async with routed_to(handler, tmp_path) as router:
        answer = await router.generate("Hello", latency_budget=10.0)
    assert answer.text == "yes"
    (wait,) = handler.waits
    assert wait >= least


@pytest.mark.parametrize(
    "trailing",
    [
        ("grpc-retry-pushback-ms", "-1"),
        ("grpc-retry-pushback-ms", "soon"),
        retry_info(-1),
        details(b"\xff\xff\xff"),
        retry_info(3600),
    ],
    ids=["negative pushback", "unreadable pushback", "negative RetryInfo", "unreadable RetryInfo", "past the budget"],
)
async def test_one_that_means_stop_ends_the_request_at_once(tmp_path: Path, trailing: tuple[str, str | bytes]) -> None:
    handler = Refusing(9, grpc.StatusCode.RESOURCE_EXHAUSTED, trailing)
    async with routed_to(handler, tmp_path) as router:
        async with asyncio.timeout(5):
            with pytest.raises(Overloaded):
                await router.generate("Hello", latency_budget=60.0)
    assert len(handler.came) == 1


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_the_library_s_own_retries_do_not_multiply_the_router_s(tmp_path: Path, streaming: bool) -> None:
    """Three attempts are allowed: the server sees three calls, though the library could have made five of each."""
    handler = Refusing(99, grpc.StatusCode.UNAVAILABLE)
    async with routed_to(handler, tmp_path) as router:
        with pytest.raises(EdgewiseError):
            if streaming:
                _ = [chunk async for chunk in router.stream("Hello", latency_budget=10.0)]
            else:
                await router.generate("Hello", latency_budget=10.0)
    assert len(handler.came) == 3
