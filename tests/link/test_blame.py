"""Who is at fault, as the plan and the status tell it."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.core.failure import AttemptError, FailureKind, PathFault
from edgewise.router import BackendError
from edgewise.testing import run_in_virtual_time

from .conftest import World, ask_for


@pytest.mark.parametrize(
    ("fault", "state", "code", "sentence"),
    [
        (PathFault.REFUSED, "online", RefusalCode.UNREACHABLE, "the network works and 203.0.113.5:443 is down"),
        (PathFault.HUNG, "online", RefusalCode.UNREACHABLE, "the network works and 203.0.113.5:443 hangs"),
        (PathFault.INTERCEPTED, "limited", RefusalCode.INTERCEPTED, "something else answers in the name of 203"),
        (PathFault.SILENT, "limited", RefusalCode.UNREACHABLE, "nothing comes back from 203.0.113.5:443"),
    ],
)
def test_what_is_at_fault_is_told(world: World, fault: PathFault, state: str, code: RefusalCode, sentence: str) -> None:
    async def scene() -> None:
        async with world.router() as router:
            await router.generate("x", data_class="public")
            await router.generate("x", data_class="public", backend="gateway")
            world.network.faults = {"203.0.113.5": fault}
            await ask_for(router, 6.0)
            status = router.connectivity.status
            assert status.state == state
            cloud, gateway = status.endpoints
            assert (cloud.reachability, gateway.reachability) == ("unreachable", "reachable")
            assert sentence in cloud.why
            (refusal,) = (await router.plan("x", data_class="public")).refusals
            assert (refusal.backend, refusal.code) == ("cloud", code)
            assert sentence in refusal.sentence
            world.network.faults = {}
            await asyncio.sleep(1.0)
            assert router.connectivity.state == "online"
            plan = await router.plan("x", data_class="public")
            assert {step.backend for step in plan.steps} == {"cloud", "gateway", "phone"}

    run_in_virtual_time(scene())


def test_a_service_that_takes_a_connection_and_closes_it_late_hangs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closes_late(seconds: float) -> None:
        await asyncio.sleep(1.0)
        raise AttemptError(FailureKind.UNREACHABLE, "a test said so", fault=PathFault.BROKEN)

    async def scene() -> None:
        async with world.router("cloud") as router:
            await router.generate("x", data_class="public")
            world.network.faults = {"203.0.113.5": PathFault.HUNG}
            monkeypatch.setattr(world.cloud, "probe", closes_late)
            await ask_for(router, 6.0)
            assert "203.0.113.5:443 hangs" in router.connectivity.status.endpoints[0].why

    run_in_virtual_time(scene())


def test_a_service_on_this_machine_that_came_back_as_another_one_is_not_told_as_down(world: World) -> None:
    world.cloud.local = True

    async def scene() -> None:
        async with world.router("cloud") as router:
            world.network.faults = {"203.0.113.5": PathFault.REFUSED}
            with pytest.raises(BackendError):
                await router.generate("x", data_class="public")
            (refusal,) = (await router.plan("x", data_class="public")).refusals
            assert "is down" in refusal.sentence
            world.network.faults = {"203.0.113.5": PathFault.INTERCEPTED}
            await asyncio.sleep(2.0)
            (cloud,) = router.connectivity.status.endpoints
            assert cloud.reachability == "reachable"
            assert (await router.plan("x", data_class="public")).steps, "what answers there is the breaker's business"

    run_in_virtual_time(scene())


def test_a_server_that_is_down_is_no_link_that_is_offline(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            world.network.faults = {"203.0.113.5": PathFault.REFUSED}
            with pytest.raises(BackendError):
                await router.generate("x", data_class="public")
            with pytest.raises(BackendError, match="the network works and 203"):
                await router.generate("x", data_class="public")
            assert router.connectivity.state == "online"

    run_in_virtual_time(scene())
