"""When something is sent to find out, and when nothing is."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from edgewise.core.failure import PathFault
from edgewise.router import BackendError
from edgewise.router.link import Connectivity, LinkStatus
from edgewise.testing import run_in_virtual_time

from .conftest import HOUR, MOST_IN_AN_HOUR, OWN, World, ask_for, lose_everything, probes


def test_nothing_is_sent_and_no_timer_runs_while_nobody_wants_to_know(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            await router.generate("x", data_class="public")
            await asyncio.sleep(3600)
            assert world.network.opened == []
            world.network.faults = {"203.0.113.5": PathFault.REFUSED}
            with pytest.raises(BackendError):
                await router.generate("x", data_class="public")
            await asyncio.sleep(3600)
            # Asked for as long as the request's wish to know lasted, and not an hour long.
            assert 3.0 <= world.network.opened[-1][0] - 3600 <= 4.0
            asked = len(world.network.opened)
            loop = asyncio.get_running_loop()
            assert not [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
            world.network.faults = {}
            with pytest.raises(BackendError):
                await router.generate("x", data_class="public")
            await asyncio.sleep(0.5)
            assert (await router.generate("x", data_class="public")).backend == "cloud"
            assert len(world.network.opened) == asked + 1

    run_in_virtual_time(scene(), begins_at=0.0)


def test_whoever_watches_is_told_of_a_return_by_ever_rarer_probes(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            told: list[LinkStatus] = []
            router.connectivity.subscribe(told.append)
            world.network.faults = {"203.0.113.5": PathFault.REFUSED}
            with pytest.raises(BackendError):
                await router.generate("x", data_class="public")
            await asyncio.sleep(600)
            times = [at for at, _ in world.network.opened]
            pauses = [after - before for before, after in pairwise(times)]
            assert len([at for at in times if at < 5.0]) > 8
            assert all(24.0 <= pause <= 36.0 for pause in pauses[-5:])
            assert len({round(pause, 3) for pause in pauses[-5:]}) == 5
            world.network.faults = {}
            await asyncio.sleep(40)
            assert [each.endpoints[0].reachability for each in told] == ["unreachable", "reachable"]

    run_in_virtual_time(scene(), begins_at=0.0)


def test_a_thousand_devices_do_not_come_back_as_one(world: World) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        links = [Connectivity([world.cloud], world.network, random.Random(seed)) for seed in range(100)]
        for link in links:
            link.facts()
        world.network.change()
        await asyncio.sleep(0.5)
        assert {link.state for link in links} == {"offline"}
        world.network.change(OWN)
        back_at = loop.time()
        await asyncio.sleep(1.0)
        assert {link.status.endpoints[0].reachability for link in links} == {"reachable"}
        first = sorted(at - back_at for at in world.cloud.asked)[:100]
        most_at_once = max(sum(at <= other < at + 0.03 for other in first) for at in first)
        assert most_at_once <= 30
        for link in links:
            await link.stop()

    run_in_virtual_time(scene())


def test_a_network_that_does_not_say_when_it_changes_is_looked_at(world: World) -> None:
    async def scene() -> None:
        world.network.polled = True
        async with world.router("cloud") as router:
            await router.generate("x", data_class="public")
            world.network.addresses = set()
            await asyncio.sleep(1.0)
            assert router.connectivity.state == "offline"
            world.network.addresses = {OWN}
            await asyncio.sleep(1.5)
            assert router.connectivity.state == "online"
            await asyncio.sleep(600)
            loop = asyncio.get_running_loop()
            assert not [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]

    run_in_virtual_time(scene())


def test_watching_ends_with_the_router(world: World) -> None:
    async def scene() -> None:
        async with world.router() as router:
            assert len(world.network.watchers) == 1
            world.network.faults = {"203.0.113.5": PathFault.SILENT, "192.0.2.9": PathFault.SILENT}
            await ask_for(router, 2.0)
        assert world.network.watchers == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(scene())


def test_a_router_without_anything_beyond_the_device_watches_nothing(world: World) -> None:
    async def scene() -> None:
        async with world.router("phone") as router:
            assert (await router.generate("x", data_class="public")).backend == "phone"
            assert router.connectivity.status.endpoints == ()
        assert world.network.watchers == []

    run_in_virtual_time(scene())


def test_looking_often_does_not_ask_more_often(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "gateway") as router:
            await lose_everything(world, router)
            for _ in range(round(HOUR)):
                assert router.connectivity.state == "offline"
                await router.plan("x", data_class="public")
                await asyncio.sleep(1.0)
            assert 0 < probes(world) <= MOST_IN_AN_HOUR

    run_in_virtual_time(scene())


def test_whoever_subscribes_late_is_told_of_the_return(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "gateway") as router:
            await lose_everything(world, router)
            told: list[str] = []
            router.connectivity.subscribe(lambda status: told.append(status.state))
            world.network.faults = {}
            await asyncio.sleep(40.0)
            assert told[-1:] == ["online"]

    run_in_virtual_time(scene())
