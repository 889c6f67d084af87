"""How what is queued goes out: when, how often, by whom, and when it is given up."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgewise.router import (
    Answer,
    DeadLetter,
    FailureKind,
    OutboxError,
)
from edgewise.router.outbox import Store
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import ROOMY, RouterMaker, entry, failing, loop_clock, received

SECRET = "Patient Zebulon Quartz"


def test_it_waits_while_the_device_is_offline_and_goes_soon_after(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, replay=True) as router:
            router.connectivity.force("offline")
            receipt = await router.submit("Hello")
            assert await router.result(receipt, timeout="1h") is None
            assert cloud.calls == []
            router.connectivity.force(None)
            back = loop.time()
            assert await router.result(receipt, timeout=None) is not None
            assert loop.time() - back < 4.0

    run_in_virtual_time(main())
    assert len(cloud.calls) == 1


def test_a_replay_begins_gently_and_grows_faster(make_router: RouterMaker) -> None:
    times: list[float] = []

    def script(call: int) -> Script:
        times.append(asyncio.get_running_loop().time())
        return Script()

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud", script), replay=True) as router:
            router.connectivity.force("offline")
            receipts = [await router.submit(f"note {number}") for number in range(60)]
            router.connectivity.force(None)
            for receipt in receipts:
                assert await router.result(receipt, timeout=None) is not None

    run_in_virtual_time(main())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] > 0.7
    assert all(gap > 0.03 for gap in gaps)
    assert gaps[-1] < 0.1
    assert len(set(gaps)) > 50  # jitter


def test_a_server_that_is_down_is_asked_ever_less_and_the_entry_lives_on(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", failing(FailureKind.UNREACHABLE))

    async def main() -> None:
        async with make_router(cloud, replay=True) as router:
            receipt = await router.submit("Hello", ttl="3h")
            assert await router.result(receipt, timeout="2h") is None
            with pytest.raises(DeadLetter, match="time to live") as caught:
                await router.result(receipt, timeout="2h")
            assert caught.value.reason == "expired"

    run_in_virtual_time(main())
    assert 10 < len(cloud.calls) < 100  # with the attempts that a send makes itself


def test_what_breaks_servers_is_given_up_and_what_is_refused_at_once(make_router: RouterMaker) -> None:
    def script(call: int) -> Script:
        return Script() if call == 0 else failing(FailureKind.CONTENT_FILTER if call == 1 else FailureKind.INTERNAL)

    cloud = ScriptedBackend("cloud", script)

    async def main() -> None:
        async with make_router(cloud, replay=True, offline="max_sends: 3") as router:
            fine = await router.submit("fine", priority="high")
            assert await router.result(fine, timeout="1h") is not None
            filtered = await router.submit("filtered")
            with pytest.raises(DeadLetter) as caught:
                await router.result(filtered, timeout="1h")
            assert caught.value.reason == "refused"
            poison = await router.submit(SECRET)
            with pytest.raises(DeadLetter) as caught:
                await router.result(poison, timeout="20h")
            assert caught.value.reason == "poison"
            assert SECRET not in str(caught.value)

    run_in_virtual_time(main())
    assert received(cloud).count(SECRET) == 3


def test_nothing_leaves_where_the_policy_got_stricter_in_between(make_router: RouterMaker, tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud) as router:
            receipt = await router.submit(SECRET, data_class="personal", ttl="2h")
            other = await router.submit("the weather", data_class="public")
        async with make_router(cloud, personal="[DE]", replay=True) as stricter:
            assert await stricter.result(other, timeout="1h") is not None
            assert await stricter.result(receipt, timeout="1h") is None
            with pytest.raises(DeadLetter, match=r"expired.*it waited because: .*'personal' permits process_in \[DE\]"):
                await stricter.result(receipt, timeout="2h")

    run_in_virtual_time(main())
    assert received(cloud) == ["the weather"]
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_nothing_leaves_where_its_class_is_gone_and_it_leaves_when_it_is_back(
    make_router: RouterMaker, tmp_path: Path
) -> None:
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud) as router:
            conversation = await router.submit("Hello", conversation="c", data_class="personal")
            receipt = await router.submit("And now?", conversation="c", data_class="public")
        async with make_router(cloud, personal="[DE]", replay=True) as stricter:
            assert await stricter.result(receipt, timeout="1h") is None
            assert await stricter.result(conversation, timeout="1h") is None
        assert cloud.calls == []
        async with make_router(cloud, replay=True) as router:
            answer = await router.result(receipt, timeout="1h")
        assert isinstance(answer, Answer)
        assert answer.data_classes == ("personal", "public")

    run_in_virtual_time(main())


def test_closing_in_the_middle_loses_nothing_and_blames_nobody(make_router: RouterMaker) -> None:
    slow = ScriptedBackend("cloud", Script(first_after=15.0))

    async def main() -> None:
        async with make_router(slow) as router:
            receipt = await router.submit("Hello")
        for _ in range(8):  # more often than a poisonous request may be sent
            async with make_router(slow, replay=True):
                await asyncio.sleep(5)
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            assert await router.result(receipt, timeout="1h") is not None

    run_in_virtual_time(main())
    assert len(slow.calls) == 8


def test_one_of_two_routers_replays(make_router: RouterMaker) -> None:
    first, second = ScriptedBackend("cloud"), ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(first, replay=True) as one:
            await one.submit("the first")
            await asyncio.sleep(1)
            async with make_router(second, replay=True) as two:
                receipts = [await two.submit(f"note {number}") for number in range(10)]
                for receipt in receipts:
                    assert await two.result(receipt, timeout="1h") is not None
                with pytest.raises(OutboxError, match="another process replays"):
                    await two.flush()
                assert second.calls == []
                await one.close()
                last = await two.submit("one more")
                assert await two.result(last, timeout="1h") is not None

    run_in_virtual_time(main())
    assert (len(first.calls), len(second.calls)) == (11, 1)


def test_an_idle_replay_writes_nothing_and_is_there_when_something_comes(make_router: RouterMaker, path: Path) -> None:
    def written() -> list[int]:
        return [file.stat().st_mtime_ns for file in (path, path.with_name(path.name + "-wal"))]

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            assert await router.result(await router.submit("Hello"), timeout="1h") is not None
            await asyncio.sleep(120)
            before = written()
            await asyncio.sleep(3600)
            assert written() == before
            async with make_router(ScriptedBackend("cloud")) as other:
                receipt = await other.submit("Hello again")
                assert await other.result(receipt, timeout="20s") is not None

    run_in_virtual_time(main())


def test_a_flush_tries_each_once(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", lambda call: failing(FailureKind.INTERNAL) if call == 1 else Script())

    async def main() -> None:
        async with make_router(cloud) as router:
            for number in range(4):
                await router.submit(f"note {number}", priority="low" if number else "high")
            router.connectivity.force("offline")
            tally = await router.flush()
            assert (tally.answered, tally.waiting, tally.dead) == (0, 4, 0)
            router.connectivity.force(None)
            steps: list[tuple[int, int]] = []
            tally = await router.flush(lambda tally: steps.append((tally.answered + tally.waiting, tally.total)))
            assert (tally.answered, tally.waiting, tally.dead) == (3, 1, 0)
            assert steps == [(done, 4) for done in range(5)]

    run_in_virtual_time(main())


def test_a_flush_sends_a_whole_row_of_requests_that_follow_one_another(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=0.5))

    async def main() -> None:
        async with make_router(cloud) as router:
            for number in range(6):
                await router.submit(f"note {number}", order_key="notes")
            tally = await router.flush()
            assert (tally.answered, tally.waiting, tally.total) == (6, 0, 6)

    run_in_virtual_time(main())
    assert received(cloud) == [f"note {number}" for number in range(6)]


def test_what_cannot_be_read_holds_up_nobody(make_router: RouterMaker, path: Path) -> None:
    async def main() -> None:
        whole = '{"messages": [], "options": {}}'
        for name, content, labels in (
            ("a", "{}", "{}"),
            ("b", "no JSON", "{}"),
            ("c", '{"messages": [7], "options": {}}', "{}"),
            ("d", whole, '{"an_option_of_a_newer_edgewise": 1}'),
            ("e", whole, "{}"),
        ):
            new = replace(entry(name, content=content, at=loop_clock().timestamp()), labels=labels)
            Store(path).add(new, ROOMY)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute("UPDATE entries SET content = NULL WHERE receipt = 'e'")
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            receipt = await router.submit("Hello")
            assert await router.result(receipt, timeout="1h") is not None
            for name in "abcde":
                with pytest.raises(DeadLetter, match="cannot be read"):
                    await router.result(name)

    run_in_virtual_time(main())
