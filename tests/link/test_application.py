"""What an application says of the link, and what it is told."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.router import InvalidRequest, Router
from edgewise.router.link import LinkStatus
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import OWN, World, ask_for


def test_forcing_wins_over_all_evidence(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            await router.generate("x", data_class="public")
            router.connectivity.force("offline")
            answer = await router.generate("x", data_class="public")
            assert (answer.backend, answer.decision.refusals[0].code) == ("phone", RefusalCode.OFFLINE)
            status = router.connectivity.status
            assert (status.state, status.forced, status.confidence_percent) == ("offline", True, 100)
            router.connectivity.force(None)
            world.network.change()
            await asyncio.sleep(0.1)
            assert router.connectivity.state == "offline"
            router.connectivity.force("online")
            world.network.addresses = {OWN}
            assert (await router.generate("x", data_class="public")).backend == "cloud"

    run_in_virtual_time(scene())


def test_an_application_may_say_what_its_own_system_says(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            connectivity = router.connectivity
            connectivity.report("offline")
            assert connectivity.state == "offline"
            assert (await router.generate("x", data_class="public")).backend == "phone"
            connectivity.report("online")
            assert connectivity.state == "online"
            connectivity.report("limited")
            assert connectivity.state == "limited"
            assert (await router.generate("x", data_class="public")).backend == "cloud"
            connectivity.report("online", changed=True)
            await asyncio.sleep(0)
            assert world.cloud.renewed == 1
            connectivity.report("offline")
            await connectivity.check()
            await asyncio.sleep(1.0)  # it was said to be lost twice
            # The service itself answered: that is more than anybody's word.
            assert connectivity.state == "online"

    run_in_virtual_time(scene())


def test_an_application_that_says_offline_and_no_more_is_disproved_by_what_answers(world: World) -> None:
    async def scene() -> None:
        async with world.router("cloud", "phone") as router:
            router.connectivity.report("offline")
            assert router.connectivity.state == "offline"
            first, *_, last = await ask_for(router, 1.0)
            assert (first, last) == ("phone", "cloud")
            assert router.connectivity.state == "online"
            world.network.change()
            router.connectivity.report("offline")
            assert set(await ask_for(router, 60.0, every=5.0)) == {"phone"}
            assert router.connectivity.state == "offline"

    run_in_virtual_time(scene())


@pytest.mark.parametrize("state", ["off", "ONLINE", "", 3, [], True])
def test_a_word_that_is_no_state_is_refused(world: World, state: object) -> None:
    async def scene() -> None:
        async with world.router() as router:
            for method in (router.connectivity.force, router.connectivity.report):
                with pytest.raises(InvalidRequest, match="it is one of 'online', 'limited', 'offline'"):
                    method(state)  # type: ignore[arg-type]
            assert router.connectivity.state == "online"

    run_in_virtual_time(scene())


def test_other_nonsense_is_refused(world: World) -> None:
    async def scene() -> None:
        async with world.router() as router:
            connectivity = router.connectivity
            with pytest.raises(InvalidRequest, match="nothing is reported"):
                connectivity.report()
            with pytest.raises(InvalidRequest, match="changed is True or False"):
                connectivity.report("online", changed="yes")  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="metered is True, False or None"):
                connectivity.set_metered("no")  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="a listener is a function"):
                connectivity.subscribe(None)  # type: ignore[arg-type]

    run_in_virtual_time(scene())


@pytest.mark.parametrize(
    ("system", "said", "seen"), [(None, None, True), (True, None, True), (False, None, False), (True, False, False)]
)
def test_what_nobody_knows_of_the_price_counts_as_metered(
    world: World, system: bool | None, said: bool | None, seen: bool
) -> None:
    async def scene() -> None:
        world.network.metered = system
        async with world.router() as router:
            router.connectivity.set_metered(said)
            assert router.connectivity.facts().metered is seen
            assert router.connectivity.status.metered is (system if said is None else said)

    run_in_virtual_time(scene())


def test_changes_are_told_to_functions_and_to_loops(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with world.router("cloud") as router:
            heard: list[str] = []

            def broken(status: LinkStatus) -> None:
                raise LookupError("a listener's own mistake")

            complaints: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
            router.connectivity.subscribe(broken)
            end = router.connectivity.subscribe(lambda status: heard.append(status.state))
            changes = router.connectivity.changes()
            assert (await anext(changes)).state == "online"
            world.network.change()
            assert (await anext(changes)).state == "offline"
            end()
            router.connectivity.force("limited")
            assert (await anext(changes)).state == "limited"
            await changes.aclose()
            assert heard == ["offline"]
            assert complaints == ["a listener to the link's changes failed"] * 2

    run_in_virtual_time(scene())


def test_blocking_code_has_the_same(world: World) -> None:
    path = world.write("cloud", "phone")
    with Router.from_yaml(path, backends={"cloud": ScriptedBackend("cloud"), "phone": world.phone}) as router:
        link = router.connectivity
        assert (link.state, link.status.endpoints[0].backends) == ("online", ("cloud",))
        heard: list[str] = []
        end = link.subscribe(lambda status: heard.append(status.state))
        changes = link.changes()
        assert next(changes).state == "online"
        link.force("offline")
        assert next(changes).state == "offline"
        link.force(None)
        link.report("limited")
        assert link.check().state == "limited"
        link.set_metered(False)
        assert link.status.metered is False
        end()
        link.report("online")
        assert heard == ["offline", "online", "limited", "limited"]
        with pytest.raises(InvalidRequest):
            link.force("off")
    assert list(changes) == []
