"""Every way of leaving a request stops the work behind it, on the server and on this device, and leaks nothing.

A machine may be busy, so time is told by the work itself: the server counts the words that it still makes, one every
20 ms, and the worker's processor time is read. 100 ms are five words, or 100 ms of each of its threads.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router import AsyncRouter, Chunk, Router

EVERY = 0.02
MOST_WORDS = 5
MOST_PROCESSOR_SECONDS = 0.1
ENGINE_THREADS = psutil.cpu_count() or 1
FOREVER: dict[str, Any] = {"data_class": "public", "latency_budget": 60.0, "max_output_tokens": 900, "seed": 5}
"""By this seed the model says some hundreds of tokens; by others it may have done in half a second."""


class Talking(grpc.GenericRpcHandler):
    """A server that talks until it is stopped, and counts its words."""

    def __init__(self) -> None:
        self.words = 0
        self.running = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if not details.method.endswith("/Generate"):
            return None
        return grpc.unary_stream_rpc_method_handler(self.generate)

    def generate(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.running += 1
        context.add_callback(self._ended)
        word = wire.GenerateResponse(delta=wire.Delta(text="word ", tokens=1)).SerializeToString()
        while context.is_active():
            self.words += 1
            yield word
            time.sleep(EVERY)

    def _ended(self) -> None:
        self.running -= 1


class Server:
    """Work on the server."""

    name = "cloud"

    def __init__(self, talking: Talking) -> None:
        self._talking = talking

    def works(self) -> bool:
        return self._talking.running > 0

    def spent(self) -> float:
        return self._talking.words

    allowed = MOST_WORDS


class Device:
    """Work on this device."""

    name = "phone"

    def __init__(self, worker: psutil.Process) -> None:
        self._worker = worker
        self._idle = self.spent()

    def works(self) -> bool:
        return self.spent() > self._idle + 0.05

    def spent(self) -> float:
        times = self._worker.cpu_times()
        return times.user + times.system

    allowed = MOST_PROCESSOR_SECONDS * ENGINE_THREADS


Place = Server | Device


def assert_stops(place: Place, way: str) -> None:
    """It comes to rest, having spent no more than is allowed from now on."""
    left = before = place.spent()
    for _ in range(100):
        time.sleep(0.1)
        now = place.spent()
        if now == before:
            break
        before = now
    assert before - left <= place.allowed, f"{place.name} went on for {before - left:.2f} after {way}"


@pytest.fixture(scope="module")
def talking() -> Iterator[tuple[Talking, str]]:
    handler = Talking()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def file(configure: Callable[..., Path], talking: tuple[Talking, str]) -> Path:
    return configure(talking[1])


def place_of(name: str, talking: tuple[Talking, str], worker: Callable[[], psutil.Process]) -> Place:
    return Server(talking[0]) if name == "cloud" else Device(worker())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def cancelled(router: AsyncRouter, place: Place) -> None:
    call = asyncio.ensure_future(router.generate("Count to a thousand.", backend=place.name, **FOREVER))
    await until(place.works)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def reader_cancelled(router: AsyncRouter, place: Place) -> None:
    async def read() -> None:
        async for _ in router.stream("Count to a thousand.", backend=place.name, **FOREVER):
            pass

    reading = asyncio.ensure_future(read())
    await until(place.works)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def begun(router: AsyncRouter, place: Place) -> AsyncGenerator[Chunk, None]:
    chunks = router.stream("Count to a thousand.", backend=place.name, **FOREVER)
    await anext(chunks)
    return chunks


async def left_by_context(router: AsyncRouter, place: Place) -> None:
    async with aclosing(await begun(router, place)):
        pass


async def dropped(router: AsyncRouter, place: Place) -> None:
    chunks = await begun(router, place)
    del chunks
    gc.collect()
    await asyncio.sleep(0)


async def timed_out_by_the_caller(router: AsyncRouter, place: Place) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await router.generate("Count to a thousand.", backend=place.name, **FOREVER)


WAYS: list[Callable[[AsyncRouter, Place], Awaitable[None]]] = [
    cancelled,
    reader_cancelled,
    left_by_context,
    dropped,
    timed_out_by_the_caller,
]


@pytest.mark.parametrize("name", ["cloud", "phone"])
async def test_asynchronous_ways_out(
    file: Path, name: str, talking: tuple[Talking, str], worker: Callable[[], psutil.Process]
) -> None:
    async with AsyncRouter.from_yaml(file) as router:
        await router.ready()
        for way in WAYS:
            left = place_of(name, talking, worker)
            await way(router, left)
            await asyncio.get_running_loop().run_in_executor(None, assert_stops, left, way.__name__)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        queue = router.stats().backends[name].queue
        assert (queue.running, queue.waiting, queue.promised) == (0, 0, 0)
        place = place_of(name, talking, worker)
        kept = await begun(router, place)
    # Closing the router is a way out, too.
    await asyncio.get_running_loop().run_in_executor(None, assert_stops_or_is_gone, place)
    await kept.aclose()
    assert not [task for task in others if not task.done()]


def assert_stops_or_is_gone(place: Place) -> None:
    with suppress(psutil.NoSuchProcess):
        assert_stops(place, "closing the router")


def interrupt_soon() -> None:
    """Ctrl-C, as the main thread gets it."""
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()


def blocking_with(router: Router, place: Place) -> None:
    with router.stream("Count to a thousand.", backend=place.name, **FOREVER) as chunks:
        next(chunks)


def blocking_dropped(router: Router, place: Place) -> None:
    chunks = router.stream("Count to a thousand.", backend=place.name, **FOREVER)
    next(chunks)
    del chunks
    gc.collect()


def interrupted_stream(router: Router, place: Place) -> None:
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        for _ in router.stream("Count to a thousand.", backend=place.name, **FOREVER):
            pass


def interrupted_call(router: Router, place: Place) -> None:
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        router.generate("Count to a thousand.", backend=place.name, **FOREVER)


@pytest.mark.parametrize("name", ["cloud", "phone"])
def test_blocking_ways_out(
    file: Path, name: str, talking: tuple[Talking, str], worker: Callable[[], psutil.Process]
) -> None:
    with Router.from_yaml(file) as router:
        router.ready()
        for way in (blocking_with, blocking_dropped, interrupted_stream, interrupted_call):
            place = place_of(name, talking, worker)
            way(router, place)
            assert_stops(place, way.__name__)
        assert router.generate("Hello", data_class="health", max_output_tokens=4).backend == "phone"


def test_routers_that_come_and_go_leave_neither_threads_nor_descriptors(
    file: Path, talking: tuple[Talking, str]
) -> None:
    """Streams left in every state, channels opened, a worker each."""
    process = psutil.Process()

    def once() -> None:
        with Router.from_yaml(file) as router:
            router.ready()
            router.generate("Hello", data_class="health", max_output_tokens=4)
            with router.stream("Count to a thousand.", backend="cloud", **FOREVER) as chunks:
                next(chunks)
            kept = [router.stream("Count to a thousand.", backend=name, **FOREVER) for name in ("cloud", "phone")]
            for chunks in kept:
                next(chunks)

    once()
    gc.collect()
    threads, descriptors = threading.active_count(), process.num_fds()
    for _ in range(3):
        once()
    gc.collect()
    for _ in range(50):
        if threading.active_count() <= threads and process.num_fds() <= descriptors:
            break
        time.sleep(0.1)  # gRPC closes its sockets on threads of its own
    assert threading.active_count() <= threads
    assert process.num_fds() <= descriptors
    assert not [child for child in process.children() if "process.main" in " ".join(child.cmdline())]
