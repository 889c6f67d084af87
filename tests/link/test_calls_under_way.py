"""What becomes of calls and connections when the network changes under them."""

from __future__ import annotations

import asyncio

from edgewise.core.failure import AttemptError, FailureKind
from edgewise.testing import Script, run_in_virtual_time

from .conftest import NEW, OWN, World

BREAKS_LATE = Script(
    words=("one ",) * 8, every=0.1, failure=AttemptError(FailureKind.INTERNAL, "it broke"), fails_after=8
)


def test_calls_under_way_move_over_when_their_endpoint_is_lost(world: World) -> None:
    world.cloud._own = Script(words=("one ",) * 200, every=0.1)

    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            loop = asyncio.get_running_loop()
            texts, seams = [], []

            async def read() -> None:
                async for chunk in router.stream("x", data_class="public", max_output_tokens=300):
                    texts.append(chunk.text)
                    if chunk.seam:
                        seams.append((loop.time(), chunk.seam.to_backend))

            reading = asyncio.create_task(read())
            await asyncio.sleep(1.0)
            world.network.change()
            await reading
            # What still came within its grace, in which the link might have come back with it, is kept.
            assert "".join(texts) == "one " * 14 + "a scripted answer"
            ((at, backend),) = seams
            assert backend == "phone"
            assert 0.3 <= at - 1.0 <= 0.5

    run_in_virtual_time(scene(), begins_at=0.0)


def test_a_link_that_comes_straight_back_costs_no_call(world: World) -> None:
    world.cloud._own = Script(words=("one ",) * 30, every=0.1)

    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            asking = asyncio.create_task(router.generate("x", data_class="public"))
            await asyncio.sleep(1.0)
            world.network.change()
            await asyncio.sleep(0.2)
            assert router.connectivity.state == "offline"
            world.network.change(OWN)
            answer = await asking
            assert (answer.backend, len(answer.decision.attempts)) == ("cloud", 1)

    run_in_virtual_time(scene())


def test_another_address_renews_channels_and_ends_what_went_by_the_old_one(world: World) -> None:
    world.cloud._own = Script(words=("one ",) * 100, every=0.1)

    async def scene() -> None:
        async with world.router("cloud", "gateway", "phone") as router:
            asking = asyncio.create_task(router.generate("x", data_class="public", max_output_tokens=300))
            await asyncio.sleep(1.0)
            world.network.change(NEW)
            answer = await asking
            assert answer.backend == "gateway"
            assert "an address that this device has no more" in answer.decision.attempts[0].sentence
            assert (world.cloud.renewed, world.gateway.renewed) == (1, 1)
            assert router.connectivity.state == "online"

    run_in_virtual_time(scene())


def test_a_vpn_renews_the_channels_of_what_goes_through_it_and_ends_no_call(world: World) -> None:
    world.cloud._own = Script(words=("one ",) * 30, every=0.1)

    async def scene() -> None:
        async with world.router("cloud", "gateway") as router:
            asking = asyncio.create_task(router.generate("x", data_class="public"))
            await asyncio.sleep(1.0)
            world.network.routes["203.0.113.5"] = NEW
            world.network.change(OWN, NEW)
            answer = await asking
            assert (answer.backend, len(answer.decision.attempts)) == ("cloud", 1)
            assert (world.cloud.renewed, world.gateway.renewed) == (1, 0)

    run_in_virtual_time(scene())


def test_after_a_sleep_connections_are_doubted_by_the_next_request(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            await router.generate("x", data_class="public")
            world.network.asleep += 600.0
            await router.generate("x", data_class="public")
            assert world.cloud.renewed == 1
            await router.generate("x", data_class="public")
            assert world.cloud.renewed == 1

    run_in_virtual_time(scene())


def test_the_airplane_switch_lets_no_further_attempt_start(world: World) -> None:
    world.cloud._own = BREAKS_LATE

    async def scene() -> None:
        async with world.router() as router:
            asking = asyncio.create_task(router.generate("x", data_class="public"))
            await asyncio.sleep(0.3)
            router.connectivity.force("offline")
            answer = await asking
            assert answer.backend == "phone"
            assert [(each.backend, each.failure) for each in answer.decision.attempts] == [
                ("cloud", FailureKind.INTERNAL),
                ("gateway", FailureKind.PREEMPTED),
                ("phone", None),
            ]
            assert "not tried: the link is switched off" in answer.decision.attempts[1].sentence
            assert world.gateway.calls == []

    run_in_virtual_time(scene())


def test_a_step_that_was_planned_before_its_endpoint_was_lost_costs_no_time(world: World) -> None:
    world.cloud._own = BREAKS_LATE

    async def scene() -> None:
        async with world.router() as router:
            asking = asyncio.create_task(router.generate("x", data_class="public"))
            await asyncio.sleep(0.3)
            world.network.routes["192.0.2.9"] = "gone"
            world.network.change(OWN, NEW)
            answer = await asking
            assert answer.backend == "phone"
            assert "not tried: this device has no network that leads to 192" in answer.decision.attempts[1].sentence
            assert world.gateway.calls == []

    run_in_virtual_time(scene())
