"""Submitting, waiting, cancelling, in virtual time: what an application sees, and what the backend received."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgewise.core.content import GenerateInput
from edgewise.router import (
    Answer,
    AsyncRouter,
    DeadLetter,
    FailureKind,
    InvalidRequest,
    Message,
    NoBackendPermitted,
    OutboxError,
    OutboxFull,
    PolicyError,
)
from edgewise.router.config import loads
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker, failing, received

SECRET = "Patient Zebulon Quartz"


def test_what_was_submitted_is_answered_by_a_later_router_with_everything_that_was_said(
    make_router: RouterMaker,
) -> None:
    cloud = ScriptedBackend("cloud")
    messages = [Message.system("Be brief."), Message.user(SECRET, data_class="personal"), Message.assistant("I ")]

    async def main() -> None:
        async with make_router(cloud) as router:
            receipt = await router.submit(
                messages, data_class="public", temperature=0.5, stop=["END"], max_output_tokens=7, tags={}
            )
            assert await router.result(receipt) is None
        assert cloud.calls == []
        async with make_router(ScriptedBackend("cloud"), replay=False) as idle:
            assert await idle.result(receipt, timeout=10) is None
        async with make_router(cloud, replay=True) as router:
            answer = await router.result(receipt, timeout=None)
        assert answer is not None
        assert (answer.text, answer.backend, answer.data_classes) == (
            "a scripted answer",
            "cloud",
            ("personal", "public"),
        )
        assert answer.decision.answered_by == "cloud"
        assert "answered by cloud" in answer.decision.explain()

    run_in_virtual_time(main())
    [call] = cloud.calls
    assert isinstance(call.content, GenerateInput)
    assert call.content.messages == tuple(messages)
    assert (call.content.temperature, call.content.stop, call.content.max_output_tokens) == (0.5, ("END",), 7)


def test_the_key_that_the_server_sees_is_the_one_stored_first(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", lambda call: Script() if call else failing(FailureKind.UNREACHABLE))

    async def main() -> None:
        async with make_router(cloud, replay=True) as router:
            given = await router.submit("Hello", idempotency_key="note-1")
            assert await router.submit("Hello", idempotency_key="note-1") == given
            assert await router.result(given, timeout="1h") is not None
            other = await router.submit("Hello again")
            assert await router.result(other, timeout="1h") is not None

    run_in_virtual_time(main())
    keys = [call.context.idempotency_key for call in cloud.calls]
    assert keys[0] == keys[1] == "note-1"
    assert keys[-1] not in ("note-1", "", None)


def test_a_narrowing_of_an_earlier_turn_is_kept_with_what_is_queued(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud) as router:
            await router.generate("Hello", conversation="c", residency={"process_in": ["NL"]})
            receipt = await router.submit("And now?", conversation="c")
        async with make_router(cloud, place="US", replay=True) as elsewhere:
            assert await elsewhere.result(receipt, timeout="1h") is None
        assert len(cloud.calls) == 1
        async with make_router(cloud, replay=True) as router:
            assert isinstance(await router.result(receipt, timeout="1h"), Answer)

    run_in_virtual_time(main())


def test_what_may_not_be_queued_or_can_never_go_is_refused_at_once(make_router: RouterMaker, tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud, personal="[DE]") as router:
            with pytest.raises(InvalidRequest, match="never queued"):
                await router.submit(SECRET, data_class="secret")
            with pytest.raises(InvalidRequest, match="never queued"):
                await router.submit(
                    [Message.user(SECRET, data_class="secret"), Message.user("Hi")], data_class="public"
                )
            with pytest.raises(NoBackendPermitted):
                await router.submit(SECRET, data_class="personal")
            with pytest.raises(InvalidRequest, match="ttl"):
                await router.submit(SECRET, ttl="soon")
            with pytest.raises(InvalidRequest, match="JSON"):
                await router.submit(SECRET, response_format={"type": "json_schema", "schema": object()})
            with pytest.raises(InvalidRequest):
                await router.submit("")
            with pytest.raises(OutboxError, match="there is no outbox"):
                await router.result("nonsense")

    run_in_virtual_time(main())
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_a_full_outbox_says_so_and_names_no_content(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), offline="max_entries: 1") as router:
            await router.submit("one")
            with pytest.raises(OutboxFull) as caught:
                await router.submit(SECRET)
            assert SECRET not in str(caught.value)

    run_in_virtual_time(main())


def test_without_an_outbox_the_error_says_what_to_write(tmp_path: Path) -> None:
    text = "version: 1\nbackends:\n  cloud: {kind: grpc, target: '127.0.0.1:1'}\n"

    async def main() -> None:
        async with AsyncRouter(loads(text, tmp_path)) as router:
            with pytest.raises(OutboxError, match=r"policy\.offline\.outbox"):
                await router.result("a receipt")
        with pytest.raises(OutboxError, match=r"policy\.offline\.outbox"):
            AsyncRouter(loads(text, tmp_path), replay=True)

    run_in_virtual_time(main())


def test_results_come_again_until_the_loop_moves_on(make_router: RouterMaker) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            receipts = [await router.submit(f"note {number}", order_key="notes") for number in range(3)]
            gone = await router.submit("never mind")
            assert await router.cancel(gone)
            assert await router.result(receipts[-1], timeout="1h") is not None
            seen: list[str] = []
            async for result in router.results():
                seen.append(result.receipt)
                if len(seen) == 2:
                    break
            rest = [result async for result in router.results()]
        assert {*seen, *(result.receipt for result in rest)} == {*receipts, gone}
        assert seen[1] in [result.receipt for result in rest]  # the loop was left while it was at this one
        assert seen[0] not in [result.receipt for result in rest]

    run_in_virtual_time(main())


def test_a_cancelled_request_is_not_sent(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud, replay=True) as router:
            router.connectivity.force("offline")
            receipt = await router.submit("Hello")
            assert await router.cancel(receipt)
            assert not await router.cancel(receipt)
            router.connectivity.force(None)
            with pytest.raises(DeadLetter, match="cancelled"):
                await router.result(receipt, timeout="1h")
            await asyncio.sleep(60)

    run_in_virtual_time(main())
    assert cloud.calls == []


def test_a_request_that_is_being_sent_is_stopped_when_it_is_cancelled(make_router: RouterMaker) -> None:
    slow = ScriptedBackend("cloud", Script(first_after=15.0))

    async def main() -> None:
        async with make_router(slow, replay=True) as router:
            receipt = await router.submit("Hello")
            await asyncio.sleep(5)
            assert await router.cancel(receipt)
            await asyncio.sleep(0.1)
            assert [call.outcome for call in slow.calls] == [["cancelled"]]
            other = await router.submit("Hello again")
            assert await router.result(other, timeout="1h") is not None

    run_in_virtual_time(main())
    assert received(slow) == ["Hello", "Hello again"]


@pytest.mark.parametrize(
    "offline", ["max_sends: 0", "max_entries: 0", "max_bytes: 0KB", "queue_ttl: 0s", "results_ttl: 0s"]
)
def test_limits_that_would_lose_everything_are_mistakes(make_router: RouterMaker, offline: str) -> None:
    with pytest.raises(PolicyError, match=offline.split(":")[0]):
        make_router(ScriptedBackend("cloud"), offline=offline)
