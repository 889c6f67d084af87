"""The deadline in real time, where what is slow lies outside of the backends: threads, names, a model that loads."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest

from edgewise.router import AsyncRouter, DeadlineExceeded, InvalidRequest
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker

BUDGET = 0.3
BUSY = 3.0


@asynccontextmanager
async def ends_in_time() -> AsyncIterator[None]:
    """What is asked within ends by its budget, though what it waits for never comes.

    How late, to 50 ms, is told in virtual time elsewhere; this machine may be busy.
    """
    begun = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        yield
    assert BUDGET <= asyncio.get_running_loop().time() - begun < BUDGET + BUSY


async def test_a_blocked_executor_holds_up_no_tensor_past_its_budget(make_router: RouterMaker) -> None:
    """As an application's own blocking work fills it."""
    release = threading.Event()
    executor = ThreadPoolExecutor(1)
    async with make_router(ScriptedBackend("cloud")) as router:
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(release.wait)
        try:
            small = numpy.zeros((2, 2), dtype=numpy.float32)
            answer = await router.infer("triage", {"x": small}, data_class="public", latency_budget=BUDGET)
            assert answer["x"].shape == (2, 2)
            async with ends_in_time():
                await router.infer("triage", {"x": [[0.0] * 10] * 10}, data_class="public", latency_budget=BUDGET)
        finally:
            release.set()
        with pytest.raises(InvalidRequest):
            await router.infer("triage", {"x": numpy.array([object()])}, data_class="public")


def openai_at(target: str, folder: Path) -> AsyncRouter:
    return AsyncRouter(
        loads(
            f"""
version: 1
backends:
  far: {{kind: openai, url: "{target}", model: any, location: {{process_in: [NL]}}, works_offline: true}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
""",
            folder,
        )
    )


async def test_a_name_that_is_looked_up_for_ever_ends_with_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        released.wait()
        raise socket.gaierror("nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        async with openai_at("https://models.example/v1", tmp_path) as router:
            async with ends_in_time():
                await router.generate("Hello", latency_budget=BUDGET)
            async with ends_in_time():
                async for _ in router.stream("Hello", latency_budget=BUDGET):
                    pass
            released.set()
    finally:
        released.set()


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_a_first_token_budget_is_kept_beside_the_latency_budget(make_router: RouterMaker, streaming: bool) -> None:
    """The caller asked for both, so the answer that arrives whole has begun in time, too."""
    cloud = ScriptedBackend("cloud", Script(first_after=2.0, every=0.5))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud) as router:
            options: dict[str, Any] = {"data_class": "public", "latency_budget": 10.0}

            async def ask(first: float) -> str:
                if streaming:
                    chunks = router.stream("Hello", first_token_budget=first, **options)
                    return "".join([chunk.text async for chunk in chunks])
                return (await router.generate("Hello", first_token_budget=first, **options)).text

            assert await ask(3.0) == "a scripted answer"
            begun = loop.time()
            with pytest.raises(DeadlineExceeded, match="no first token within 1 s"):
                await ask(1.0)
            assert loop.time() - begun <= 1.05

    run_in_virtual_time(main())
