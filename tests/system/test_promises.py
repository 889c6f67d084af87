"""The three promises on real parts: residency, then the budget, then an answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from edgewise.router import AsyncRouter, DeadlineExceeded, Message, RequestError

if TYPE_CHECKING:
    from tests.recorded_wire import RecordedWire
    from tests.system.conftest import Server

SECRET = "Zebulon Quartz has diabetes"
LATE = 0.05  # seconds after the deadline, by which a request has ended


def assert_kept(wire: RecordedWire, caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    """Nothing of the secret, nor of what was answered to it, on the wire or in a log."""
    for text in (SECRET, "Zebulon", "Quartz", *texts):
        assert text.encode() not in wire.sent
        assert text not in caplog.text


async def test_a_public_prompt_goes_to_the_server_and_a_health_prompt_stays(
    router: AsyncRouter, wire: RecordedWire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        public = await router.generate("Tell me of boats.", data_class="public")
        assert public.backend == "cloud"
        assert b"Tell me of boats." in wire.sent  # the recording works
        health = await router.generate(SECRET, data_class="health", max_output_tokens=16)
        history = [Message.user(SECRET, data_class="health"), Message.assistant("Noted."), Message.user("And boats?")]
        mixed = await router.generate(history, data_class="public", max_output_tokens=16)
    assert (health.backend, mixed.backend) == ("phone", "phone")
    assert_kept(wire, caplog, health.text, mixed.text)
    for answer in (health, mixed):
        assert SECRET not in f"{answer!r} {answer.decision} {answer.decision.explain()} {answer.decision.to_dict()}"


async def test_a_health_prompt_is_counted_on_the_device_as_its_generation_counts_it(
    router: AsyncRouter, wire: RecordedWire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        counted = await router.count_tokens(SECRET, data_class="health")
        answer = await router.generate(SECRET, data_class="health", max_output_tokens=1)
    assert (counted, counted.backend) == (answer.usage.prompt_tokens, "phone")
    assert_kept(wire, caplog)


async def test_health_content_stays_when_the_device_fails_and_when_the_server_restarts(
    router: AsyncRouter,
    wire: RecordedWire,
    server: Server,
    worker: Callable[[], psutil.Process],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        chunks = router.stream(SECRET, data_class="health", max_output_tokens=200)
        await anext(chunks)
        worker().send_signal(signal.SIGSEGV)
        with pytest.raises(RequestError) as caught:
            async for _ in chunks:
                pass
        server.end()
        await asyncio.gather(
            *(router.generate("Boats?", data_class="public", max_output_tokens=4) for _ in range(2)),
            router.generate(SECRET, data_class="health", max_output_tokens=4),
        )
        server.start()
        after = await router.generate(SECRET, data_class="health", max_output_tokens=16)
    assert after.backend == "phone"
    assert_kept(wire, caplog, after.text)
    assert SECRET not in f"{caught.value!r} {caught.value.decision}"


async def test_a_killed_server_s_answer_is_completed_on_the_device(router: AsyncRouter, server: Server) -> None:
    text, seams = "", []
    async for chunk in router.stream("Tell me of boats.", data_class="public", max_output_tokens=60):
        text += chunk.text
        seams += [chunk.seam] if chunk.seam else []
        if text.count(" ") == 5:
            server.signal(signal.SIGKILL)
    assert text.startswith("Once upon a time there ")
    assert [(seam.from_backend, seam.to_backend) for seam in seams] == [("cloud", "phone")]
    assert chunk.answer is not None
    assert chunk.answer.text == text
    assert chunk.answer.backend == "phone"


async def test_a_server_that_is_back_is_used_again(router: AsyncRouter, server: Server) -> None:
    server.end()
    assert (await router.generate("Boats?", data_class="public", max_output_tokens=4)).backend == "phone"
    server.start()
    await _used_again_soon(router)


async def test_a_server_that_was_stopped_for_a_while_and_goes_on_is_used_again(
    router: AsyncRouter, server: Server
) -> None:
    """Its connections stand all the while."""
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            answer = await router.generate("Boats?", data_class="public", max_output_tokens=4, latency_budget=4.0)
            assert answer.backend == "phone"
    finally:
        server.signal(signal.SIGCONT)
    await _used_again_soon(router)


async def _used_again_soon(router: AsyncRouter) -> None:
    begun = time.monotonic()
    while (await router.generate("Boats?", data_class="public", max_output_tokens=4)).backend != "cloud":
        assert time.monotonic() < begun + 5.0


async def test_a_crash_of_the_engine_is_an_error_of_one_attempt(
    router: AsyncRouter, worker: Callable[[], psutil.Process]
) -> None:
    chunks = router.stream("Count to a hundred.", data_class="public", backend="phone", max_output_tokens=200)
    await anext(chunks)
    worker().send_signal(signal.SIGSEGV)
    started = time.monotonic()
    with pytest.raises(RequestError, match="SIGSEGV"):
        async for _ in chunks:
            pass
    assert time.monotonic() - started < 5.0
    again = await router.generate("Hello", data_class="health", max_output_tokens=8)
    assert again.backend == "phone"


async def test_a_crash_on_the_device_is_answered_by_the_server_where_that_is_permitted(
    router: AsyncRouter, worker: Callable[[], psutil.Process]
) -> None:
    router.connectivity.force("offline")
    chunks = router.stream("Count to a hundred.", data_class="public", max_output_tokens=200)
    assert (await anext(chunks)).text
    router.connectivity.force(None)
    answer = asyncio.create_task(
        router.generate("Boats?", data_class="public", backend=["phone", "cloud"], max_output_tokens=8)
    )
    worker().send_signal(signal.SIGKILL)
    assert (await answer).text
    with pytest.raises(RequestError, match="SIGKILL"):  # its plan was made offline, and holds the device alone
        async for _ in chunks:
            pass


async def test_every_request_to_a_stopped_server_ends_in_time_and_locally(router: AsyncRouter, server: Server) -> None:
    assert (await router.generate("Boats?", data_class="public", max_output_tokens=8)).backend == "cloud"
    for _ in range(3):
        await router.generate("Boats?", data_class="health", max_output_tokens=8)  # learn how fast the device is
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(4):
            started = time.monotonic()
            answer = await router.generate("Boats?", data_class="public", latency_budget=3.0, max_output_tokens=8)
            assert answer.backend == "phone"
            assert time.monotonic() - started < 3.0 + LATE
        started = time.monotonic()
        with pytest.raises(RequestError):
            await router.generate("Boats?", data_class="public", backend="cloud", latency_budget=0.5)
        assert time.monotonic() - started < 0.5 + LATE
    finally:
        server.signal(signal.SIGCONT)


async def test_a_server_stopped_in_mid_stream_is_noticed(router: AsyncRouter, server: Server) -> None:
    chunks = router.stream("Boats?", data_class="public", latency_budget=30.0, max_output_tokens=60)
    text = "".join([(await anext(chunks)).text for _ in range(5)])
    server.signal(signal.SIGSTOP)
    try:
        seams = [chunk.seam async for chunk in chunks if chunk.seam]
    finally:
        server.signal(signal.SIGCONT)
    assert text
    assert [seam.to_backend for seam in seams] == ["phone"]


async def test_a_wrong_credential_is_answered_locally_and_reported_loudly(
    guarded_server: Server,
    configure: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CLOUD_TOKEN", "the-wrong-token")
    path = configure(guarded_server.address, "credentials: ${CLOUD_TOKEN}")
    async with AsyncRouter.from_yaml(path) as router:
        await router.ready()
        with caplog.at_level(logging.ERROR, "edgewise"):
            answer = await router.generate("Boats?", data_class="public", max_output_tokens=8)
        assert answer.backend == "phone"
        assert "cloud" in caplog.text
        assert "the-wrong-token" not in caplog.text
    monkeypatch.setenv("CLOUD_TOKEN", "the-right-token")
    async with AsyncRouter.from_yaml(path) as router:
        assert (await router.generate("Boats?", data_class="public", max_output_tokens=8)).backend == "cloud"


async def test_a_budget_that_cannot_be_kept_ends_on_time_with_the_text_so_far(router: AsyncRouter) -> None:
    for budget in (0.02, 0.3):
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await router.generate("Boats?", data_class="public", backend="cloud", latency_budget=budget)
        assert time.monotonic() - started < budget + LATE
