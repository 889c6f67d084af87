"""Routers begin, end, and are told apart: loops, threads, processes."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgewise.backends import Capabilities
from edgewise.core.request import Task
from edgewise.router import ConfigurationError, DeadlineExceeded, Router, RouterClosed
from edgewise.router.config import Configuration
from edgewise.router.options import RequestOptions
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker


@pytest.fixture
def configuration(make_router: RouterMaker) -> Configuration:
    return make_router(ScriptedBackend("cloud"), ScriptedBackend("phone")).configuration


def test_the_blocking_router_does_as_the_other(configuration: Configuration) -> None:
    backends = {"cloud": ScriptedBackend("cloud"), "phone": ScriptedBackend("phone")}
    with Router(configuration, backends=backends) as router:
        router.ready()
        assert router.generate("Hello", data_class="public").text == "a scripted answer"
        assert "".join(chunk.text for chunk in router.stream("Hello", data_class="public")) == "a scripted answer"
        assert router.embed(["four"], data_class="public").tolist() == [[4.0, 1.0]]
        assert router.infer("m", {"x": [1]}, data_class="public")["x"].tolist() == [1]
        assert router.plan("Hello", data_class="secret").steps[0].backend == "phone"
        router.connectivity.force("offline")
        assert router.connectivity.state == "offline"
        assert router.generate("Hello", data_class="public").backend == "phone"


def test_many_threads_share_a_router_and_two_routers_share_nothing(configuration: Configuration) -> None:
    with (
        Router(configuration, backends={"cloud": ScriptedBackend("cloud")}) as one,
        Router(configuration, backends={"cloud": ScriptedBackend("cloud")}) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        one.connectivity.force("offline")
        assert other.connectivity.state == "online"
        answers = list(threads.map(lambda _: other.generate("Hello", data_class="public").text, range(40)))
        assert answers == ["a scripted answer"] * 40


def test_a_stream_left_early_stops_its_work(configuration: Configuration) -> None:
    ended = threading.Event()

    class Watched(ScriptedBackend):
        async def generate(self, call, context):  # type: ignore[no-untyped-def]
            try:
                async for event in super().generate(call, context):
                    yield event
            finally:
                ended.set()

    cloud = Watched("cloud", Script(words=tuple("abcdefgh"), every=10.0))
    with Router(configuration, backends={"cloud": cloud}) as router:
        with router.stream("Hello", data_class="public", latency_budget=60.0) as chunks:
            next(chunks)
        assert ended.wait(5.0)
        ended.clear()
        chunks = router.stream("Hello", data_class="public", latency_budget=60.0)
        next(chunks)
        del chunks
        gc.collect()
        assert ended.wait(5.0)


def test_a_closed_router_says_so_and_closing_twice_is_fine(configuration: Configuration) -> None:
    router = Router(configuration, backends={"cloud": ScriptedBackend("cloud")})
    router.close()
    router.close()
    with pytest.raises(RouterClosed, match="closed"):
        router.generate("Hello")
    threads = [thread.name for thread in threading.enumerate()]
    assert "edgewise" not in threads


def test_a_dropped_router_ends_its_thread(configuration: Configuration) -> None:
    router = Router(configuration, backends={"cloud": ScriptedBackend("cloud")})
    thread = next(thread for thread in threading.enumerate() if thread.name == "edgewise")
    del router
    gc.collect()
    thread.join(5.0)
    assert not thread.is_alive()


def test_closing_ends_a_call_that_runs(configuration: Configuration) -> None:
    begun = threading.Event()

    class Watched(ScriptedBackend):
        async def embed(self, call, context):  # type: ignore[no-untyped-def]
            begun.set()
            return await super().embed(call, context)

    router = Router(configuration, backends={"cloud": Watched("cloud", Script(silent_after=0))})
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(router.embed, ["x"], data_class="public", latency_budget=60.0, backend="cloud")
        assert begun.wait(5.0)
        router.close()
        assert isinstance(call.exception(5.0), RouterClosed)


def test_closing_ends_all_calls_under_way_in_one_way_and_starts_nothing_for_them(make_router: RouterMaker) -> None:
    async def main() -> None:
        silent = Script(words=("one ", "two"), silent_after=1)
        cloud, phone = ScriptedBackend("cloud", silent), ScriptedBackend("phone")
        router = make_router(cloud, phone)
        options: RequestOptions = {"data_class": "public", "latency_budget": 60.0}
        streams = [router.stream("Hello", **options), router.stream("Hello", **options, stream_failover="none")]
        for stream in streams:
            assert (await anext(stream)).text == "one "
        calls = [
            asyncio.create_task(router.generate("Hello", **options)),
            asyncio.create_task(router.embed(["Hello"], **options)),
            *(asyncio.ensure_future(anext(stream)) for stream in streams),
        ]
        await asyncio.sleep(0.5)
        await router.close()
        for call in calls:
            with pytest.raises(RouterClosed, match="closed while the call ran"):
                await call
        assert not phone.calls

    run_in_virtual_time(main())


def test_a_forked_child_is_told(configuration: Configuration) -> None:
    with Router(configuration, backends={"cloud": ScriptedBackend("cloud")}) as router:
        child = os.fork()
        if child == 0:
            try:
                router.generate("Hello")
            except RouterClosed:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert router.generate("Hello", data_class="public").backend == "cloud"


def test_an_async_router_belongs_to_one_loop(make_router: RouterMaker) -> None:
    router = make_router(ScriptedBackend("cloud"))

    async def ask() -> str:
        return (await router.generate("Hello", data_class="public")).backend

    assert asyncio.run(ask()) == "cloud"
    with pytest.raises(RouterClosed, match="loop"):
        asyncio.run(ask())


def test_deadlines_hold_in_real_time(configuration: Configuration) -> None:
    import time

    silent = Script(silent_after=0)
    backends = {"cloud": ScriptedBackend("cloud", silent), "phone": ScriptedBackend("phone", silent)}
    with Router(configuration, backends=backends) as router:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            router.generate("Hello", data_class="public", latency_budget="200ms")
        assert time.monotonic() - started < 0.25  # the promise: the deadline + 50 ms


def test_a_configuration_that_is_wrong_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgewise.yaml"
    path.write_text("version: 1\nbackends: {phone: {kind: lama_cpp}}\n")
    with pytest.raises(ConfigurationError, match=r"edgewise\.yaml:2:"):
        Router.from_yaml(path)
    assert "edgewise" not in [thread.name for thread in threading.enumerate()]


def test_any_thread_may_close_a_stream(configuration: Configuration) -> None:
    silent = Script(words=("one ", "two"), silent_after=1)
    with Router(configuration, backends={"cloud": ScriptedBackend("cloud", silent)}) as router:
        chunks = router.stream("Hello", data_class="public", backend="cloud", latency_budget=60.0)
        assert next(chunks).text == "one "
        with ThreadPoolExecutor(1) as threads:
            reader = threads.submit(list, chunks)
            while not reader.running():
                pass
            chunks.close()
            assert reader.result(5.0) == []


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "left to its budget"])
def test_a_blocking_stream_that_is_left_and_kept_holds_nobody_up(configuration: Configuration, closed: bool) -> None:
    """Leaving a ``for`` loop cannot be told from a pause: `close` says it at once, and the budget at last."""
    endless = Script(words=("one ",) * 100_000, every=0.01)
    can = Capabilities(frozenset(Task), max_concurrency=1)
    cloud = ScriptedBackend("cloud", lambda number: Script() if number else endless, capabilities=can)
    with Router(configuration, backends={"cloud": cloud}) as router:
        chunks = router.stream("Hello", data_class="public", backend="cloud", latency_budget=60.0 if closed else 0.3)
        for _ in chunks:
            break
        if closed:
            chunks.close()
        assert router.generate("Hello", data_class="public", backend="cloud", latency_budget=20.0).text
        assert cloud.calls[0].outcome == ["cancelled"]
        if closed:
            assert next(chunks, None) is None
        else:
            with pytest.raises(DeadlineExceeded):
                list(chunks)


def test_an_interrupt_ends_a_blocking_stream_as_an_interrupt(configuration: Configuration) -> None:
    import signal

    silent = Script(words=("one ", "two"), silent_after=1)
    with Router(configuration, backends={"cloud": ScriptedBackend("cloud", silent)}) as router:
        chunks = router.stream("Hello", data_class="public", backend="cloud", latency_budget=60.0)
        assert next(chunks).text == "one "
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(chunks)
        with pytest.raises(StopIteration):
            next(chunks)


def test_closing_does_not_wait_for_ever(make_router: RouterMaker) -> None:
    class Stubborn(ScriptedBackend):
        async def generate(self, call, context):  # type: ignore[no-untyped-def]
            try:
                async for event in super().generate(call, context):
                    yield event
            finally:
                await asyncio.sleep(1e9)

    async def main() -> None:
        begun = asyncio.get_running_loop().time()
        router = make_router(Stubborn("cloud", Script(silent_after=1)))
        with pytest.raises(DeadlineExceeded):
            await router.generate("Hello", data_class="public", latency_budget=1.0)
        await router.close()
        assert asyncio.get_running_loop().time() - begun < 20.0

    run_in_virtual_time(main())
