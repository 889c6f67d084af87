"""What is known of the link outlives the process: how it came and went, and who has answered before."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgewise.core.failure import PathFault
from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.testing import run_in_virtual_time

from .conftest import CONFIGURATION, OWN, World, ask_for, state_after

NINE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def run(world: World, tmp_path: Path) -> Callable[..., None]:
    """Runs a process that begins at a time of the wall clock, over the same state file."""

    def run(work: Callable[[AsyncRouter], Awaitable[None]], at: datetime) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            router = AsyncRouter(
                loads(CONFIGURATION + "state_file: state.json\n", tmp_path),
                backends={"cloud": world.cloud, "gateway": world.gateway, "phone": world.phone},
                network=world.network,
                random_source=random.Random(7),
                wall_clock=lambda: at + timedelta(seconds=loop.time()),
                sample=DeviceFacts,
            )
            async with router:
                await work(router)

        run_in_virtual_time(main())

    return run


async def lose(world: World) -> None:
    """The link is lost for a while."""
    world.network.change()
    await asyncio.sleep(1.5)
    world.network.change(OWN)


@pytest.mark.parametrize(("pause", "held"), [(timedelta(seconds=12), True), (timedelta(hours=1), False)])
def test_a_link_that_came_and_went_is_held_back_in_the_next_process_too(
    world: World, run: Callable[..., None], pause: timedelta, held: bool
) -> None:
    async def flap(router: AsyncRouter) -> None:
        for _ in range(5):
            asking = asyncio.create_task(ask_for(router, 2.0))
            await lose(world)
            await asking

    async def come_back(router: AsyncRouter) -> None:
        asking = asyncio.create_task(ask_for(router, 12.0))
        await asyncio.sleep(1.0)
        await lose(world)
        took = await state_after(router, "online", 20.0)
        assert (took > 8.0) == held
        await asking

    run(flap, NINE)
    run(come_back, NINE + pause)


@pytest.mark.parametrize("known", [True, False])
def test_a_service_that_answered_before_and_shows_another_face_now_is_behind_a_portal(
    world: World, run: Callable[..., None], tmp_path: Path, known: bool
) -> None:
    async def answer(router: AsyncRouter) -> None:
        for name in ("cloud", "gateway"):
            assert (await router.generate("x", data_class="public", backend=name)).backend == name

    async def look(router: AsyncRouter) -> None:
        world.network.faults = {"203.0.113.5": PathFault.INTERCEPTED}
        await ask_for(router, 3.0)
        assert router.connectivity.state == ("limited" if known else "online")

    run(answer, NINE)
    if not known:
        (tmp_path / "state.json").unlink()
    run(look, NINE + timedelta(days=3))


def test_how_long_an_endpoint_takes_to_answer_is_kept_and_no_more_than_that(
    world: World, run: Callable[..., None], tmp_path: Path
) -> None:
    async def check(router: AsyncRouter) -> None:
        await router.connectivity.check()

    def stored() -> object:
        return json.loads((tmp_path / "state.json").read_text())["parts"]["link"]["endpoints"]

    async def nothing(router: AsyncRouter) -> None:
        assert router.connectivity.status.endpoints[0].reachability == "unknown"

    world.network.seconds = 0.8
    run(check, NINE)
    kept = stored()
    assert kept == {
        "203.0.113.5:443": {"proven": True, "round_trip": {"mean": 0.8, "deviation": 0.4}},
        "192.0.2.9:443": {"proven": True, "round_trip": {"mean": 0.8, "deviation": 0.4}},
    }
    run(nothing, NINE + timedelta(days=1))
    assert stored() == kept
