"""A queue that waits for the link: it is told of the return, and sends nothing of its own to find out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgewise.policies.facts import DeviceFacts
from edgewise.policies.plan import Plan
from edgewise.router import AsyncRouter
from edgewise.router.config import load
from edgewise.router.outbox.leases import LEASE_SECONDS, Lease
from edgewise.testing import run_in_virtual_time

from .conftest import HOUR, MOST_IN_AN_HOUR, OWN, World, lose_everything, probes


def wall_clock() -> datetime:
    return datetime(2026, 3, 2, 9, 30, tzinfo=UTC) + timedelta(seconds=asyncio.get_running_loop().time())


def queueing(world: World, tmp_path: Path, *, replay: bool = True) -> AsyncRouter:
    """A router with a cloud, a gateway and an outbox."""
    path = world.write("cloud", "gateway")
    path.write_text(path.read_text() + f"\n  offline: {{outbox: {tmp_path}/outbox.db}}\n")
    return AsyncRouter(
        load(path),
        backends={"cloud": world.cloud, "gateway": world.gateway},
        network=world.network,
        random_source=random.Random(7),
        wall_clock=wall_clock,
        sample=DeviceFacts,
        replay=replay,
    )


@pytest.mark.parametrize("waiting", [1, 40])
def test_a_queue_that_waits_offline_asks_no_more_than_whoever_watches(
    world: World, tmp_path: Path, waiting: int
) -> None:
    async def scene() -> None:
        async with queueing(world, tmp_path) as router:
            await lose_everything(world, router)
            receipts = [await router.submit("x", data_class="public") for _ in range(waiting)]
            await asyncio.sleep(HOUR)
            assert 0 < probes(world) <= MOST_IN_AN_HOUR
            world.network.faults = {}
            assert await router.result(receipts[0], timeout="40s") is not None

    run_in_virtual_time(scene())


def test_a_queue_in_which_nothing_waits_asks_nothing(world: World, tmp_path: Path) -> None:
    async def scene() -> None:
        async with queueing(world, tmp_path) as router:
            receipt = await router.submit("x", data_class="public")
            assert await router.result(receipt, timeout="1m") is not None
            await lose_everything(world, router)
            await asyncio.sleep(HOUR)
            assert world.network.opened == []

    run_in_virtual_time(scene())


def test_a_queue_that_waits_notices_a_sleep(world: World, tmp_path: Path) -> None:
    async def scene() -> None:
        async with queueing(world, tmp_path) as router:
            await lose_everything(world, router)
            await router.submit("x", data_class="public")
            await asyncio.sleep(60.0)
            for renewed in range(5):
                world.network.asleep += 600.0
                await asyncio.sleep(7.0)
                assert world.cloud.renewed == renewed + 1

    run_in_virtual_time(scene())


def test_the_link_s_return_sends_the_queue_within_a_second_and_a_server_s_too(world: World, tmp_path: Path) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with queueing(world, tmp_path) as router:
            for lose, restore in _ways_to_be_lost(world):
                await router.generate("x", data_class="public")
                lose()
                await asyncio.sleep(0.2)
                receipt = await router.submit("x", data_class="public", backend="cloud")
                await asyncio.sleep(300.0)
                assert await router.result(receipt) is None
                calls = len(world.cloud.calls)
                restore()
                began = loop.time()
                while len(world.cloud.calls) == calls:  # noqa: ASYNC110  # the call itself, not its result
                    await asyncio.sleep(0.01)
                assert loop.time() - began <= 1.0 + 0.5
                assert await router.result(receipt, timeout="10s") is not None

    run_in_virtual_time(scene())


def _ways_to_be_lost(world: World) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    def without_route() -> None:
        world.network.routes["203.0.113.5"] = "gone"
        world.network.change(OWN)

    def with_route() -> None:
        del world.network.routes["203.0.113.5"]
        world.network.change(OWN)

    yield lambda: world.network.change(), lambda: world.network.change(OWN)
    yield without_route, with_route


def test_thousands_that_may_not_go_do_not_cost_the_lease(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = AsyncRouter.plan
    held: list[bool] = []

    async def slow_plan(self: AsyncRouter, prompt: object, **options: object) -> Plan:
        await asyncio.sleep(0.1)
        other = Lease(self._queue.outbox.store.database, "another")
        held.append(not other.take(wall_clock().timestamp()))
        return await whole(self, prompt, **options)  # type: ignore[arg-type]

    async def scene() -> None:
        async with queueing(world, tmp_path, replay=False) as router:
            router.connectivity.force("offline")
            for _ in range(700):
                await router.submit("x", data_class="public")
            monkeypatch.setattr(AsyncRouter, "plan", slow_plan)
            began = asyncio.get_running_loop().time()
            tally = await router.flush()
            assert asyncio.get_running_loop().time() - began > 2 * LEASE_SECONDS
            assert tally.waiting == 700
            assert all(held)

    run_in_virtual_time(scene())
