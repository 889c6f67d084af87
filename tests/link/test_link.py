"""How the link is judged, by a network that does as it is told, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.core.failure import PathFault
from edgewise.router import Offline
from edgewise.router.link import LinkStatus
from edgewise.testing import run_in_virtual_time

from .conftest import OWN, World, ask_for, state_after


def test_without_evidence_the_link_is_online_with_little_confidence(world: World) -> None:
    async def scene() -> None:
        async with world.router() as router:
            status = router.connectivity.status
            assert (status.state, status.confidence_percent) == ("online", 50)
            assert {each.reachability for each in status.endpoints} == {"unknown"}
            await router.generate("x", data_class="public")
            status = router.connectivity.status
            assert (status.state, status.confidence_percent, status.age) == ("online", 99, 0.0)
            await asyncio.sleep(120)
            status = router.connectivity.status
            assert (status.state, status.confidence_percent, status.age) == ("online", 50, 120.0)
        assert world.network.opened == []

    run_in_virtual_time(scene())


def test_calls_that_fall_silent_show_within_two_seconds_that_the_device_is_offline(world: World) -> None:
    async def scene() -> None:
        async with world.router() as router:
            asking = asyncio.create_task(ask_for(router, 6.0))
            await asyncio.sleep(2.0)
            world.network.faults = {"203.0.113.5": PathFault.SILENT, "192.0.2.9": PathFault.SILENT}
            assert await state_after(router, "offline", 5.0) <= 2.0
            plan = await router.plan("x", data_class="public")
            assert [step.backend for step in plan.steps] == ["phone"]
            assert {(each.backend, each.code) for each in plan.refusals} == {
                ("cloud", RefusalCode.OFFLINE),
                ("gateway", RefusalCode.OFFLINE),
            }
            assert "this device is offline: nothing comes back from 203.0.113.5:443" in plan.refusals[0].sentence
            await asyncio.sleep(2.0)
            world.network.faults = {}
            assert await state_after(router, "online", 5.0) <= 1.0
            answers = await asking
            assert answers[-1] == "cloud"
            assert set(answers) == {"cloud", "phone"}

    run_in_virtual_time(scene())


def test_no_interface_is_offline_at_once_and_an_interface_alone_is_not_online(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            await router.generate("x", data_class="public")
            world.network.change()
            await asyncio.sleep(0.06)
            assert router.connectivity.state == "offline"
            with pytest.raises(Offline, match="this device has no network that leads to 203"):
                await router.generate("x", data_class="public")
            assert len(world.cloud.calls) == 1
            world.network.faults = {"203.0.113.5": PathFault.SILENT}
            world.network.change(OWN)
            await asyncio.sleep(0.06)
            assert router.connectivity.state == "limited"
            await asyncio.sleep(1.5)
            assert router.connectivity.state == "offline"
            world.network.faults = {}
            assert await state_after(router, "online", 5.0) <= 1.0

    run_in_virtual_time(scene())


def test_the_gateway_on_the_lan_works_while_the_wide_network_is_down(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "gateway") as router:
            await ask_for(router, 1.0)
            world.network.faults = {"203.0.113.5": PathFault.SILENT}
            answers = await ask_for(router, 6.0)
            assert set(answers) == {"cloud", "gateway"} or set(answers) == {"gateway"}
            assert router.connectivity.state == "limited"
            assert answers[-20:] == ["gateway"] * 20

    run_in_virtual_time(scene())


def test_a_link_that_comes_and_goes_is_told_less_often_than_it_does(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            told: list[LinkStatus] = []
            asking = asyncio.create_task(ask_for(router, 40.0))
            await asyncio.sleep(1.0)
            router.connectivity.subscribe(told.append)
            for _ in range(15):
                world.network.change()
                await asyncio.sleep(0.5)
                world.network.change(OWN)
                await asyncio.sleep(1.5)
            states = [str(each.state) for each in told]
            assert states.count("online") <= 2
            assert states.count("offline") <= 3
            assert "it was lost" in router.connectivity.status.why
            # Plans follow the endpoint itself, which is used as soon as it answers.
            plan = await router.plan("x", data_class="public")
            assert plan.steps[0].backend == "cloud"
            await asking
            await asyncio.sleep(16.0)
            assert router.connectivity.state == "online"

    run_in_virtual_time(scene())


def test_a_name_without_a_route_stays_lost_on_a_network_that_is_only_looked_at(world: World) -> None:
    """As one whose addresses are all of a family that this network does not have."""
    world.network.polled = True
    world.cloud.host = "cloud.example"
    world.network.faults = {"cloud.example": PathFault.NO_ROUTE}

    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            assert (await router.connectivity.check()).endpoints[0].reachability == "unreachable"
            assert set(await ask_for(router, 10.0)) == {"phone"}
            assert world.cloud.renewed == 0
            world.network.faults = {}
            assert (await ask_for(router, 1.0))[-1] == "cloud"

    run_in_virtual_time(scene())


def test_backends_of_one_endpoint_share_what_is_known_of_it(world: World) -> None:
    world.gateway.host = world.cloud.host

    async def scene() -> None:
        async with world.router() as router:
            world.network.faults = {"203.0.113.5": PathFault.REFUSED}
            await router.generate("x", data_class="public")
            (endpoint,) = router.connectivity.status.endpoints
            assert endpoint.backends == ("cloud", "gateway")
            plan = await router.plan("x", data_class="public")
            assert [step.backend for step in plan.steps] == ["phone"]

    run_in_virtual_time(scene())
