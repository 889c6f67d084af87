"""How the link is judged, by a network that does as it is told, in virtual time."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from edgewise.core.decision import RefusalCode
from edgewise.core.failure import AttemptError, FailureKind, PathFault
from edgewise.router import BackendError, InvalidRequest, Offline, Router
from edgewise.router.link import Connectivity, LinkStatus
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import NEW, OWN, World, ask_for, state_after


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

    run_in_virtual_time(scene())


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

    run_in_virtual_time(scene())


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


def test_the_airplane_switch_lets_no_further_attempt_start(world: World) -> None:
    broken = AttemptError(FailureKind.INTERNAL, "it broke")
    world.cloud._own = Script(words=("one ",) * 8, every=0.1, failure=broken, fails_after=8)

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
    broken = AttemptError(FailureKind.INTERNAL, "it broke")
    world.cloud._own = Script(words=("one ",) * 8, every=0.1, failure=broken, fails_after=8)

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
