"""What several calls for one piece of work ask of it: the latest of their times, the highest of their priorities."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.backends import CallContext
from edgewise.core.deadline import Deadline
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Priority
from edgewise.protos.v1 import model_service_pb2 as wire
from edgewise.router.serving.answers import generated
from edgewise.router.serving.callers import Caller
from edgewise.router.serving.served import Roster, Served
from edgewise.router.serving.work import Work
from edgewise.router.serving.works import Works
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import CALL, Connect, Scripted, Serve, collect, within

CALLER = Caller("somebody")


class Server:
    """Work at one scripted model with one place, without a wire."""

    def __init__(self, script: Script) -> None:
        self.backend = ScriptedBackend("m", script, capabilities=Scripted("m").capabilities)
        self._served: Served = Roster({"m": self.backend}, max_waiting=8).named("m")
        self._works = Works(resume_within=0.0, remember=60.0)

    def ask(self, key: str, context: CallContext) -> asyncio.Task[int]:
        """Ask by this key; comes to the number of messages."""
        request = wire.GenerateRequest(call=wire.CallInfo(idempotency_key=key))
        work = self._works.join(CALLER, request, lambda demand: generated(self._served, CALL, demand, ""), context)
        return asyncio.create_task(_messages(work))


async def _messages(work: Work) -> int:
    return len([message async for message in work.read(0)])


def by(seconds: float) -> Deadline:
    return Deadline.after(asyncio.get_running_loop().time(), seconds)


async def test_each_call_ends_by_its_own_deadline_and_the_work_goes_on_for_the_later(
    serve: Serve, connect: Connect
) -> None:
    for first_has, second_has in ((0.3, 10.0), (10.0, 0.3)):
        backend = Scripted("m")
        backend.hold = asyncio.Event()
        remote = connect(await serve(backend))
        first = remote.generate(CALL, within(first_has, idempotency_key="key"))
        await anext(first)
        second = remote.generate(CALL, within(second_has, idempotency_key="key", attempt=2))
        await anext(second)
        sooner, later = (first, second) if first_has < second_has else (second, first)
        with pytest.raises(AttemptError) as caught:
            await collect(sooner)
        assert caught.value.kind is FailureKind.TIMED_OUT
        backend.hold.set()
        assert len(await collect(later)) == 2
        assert len(backend.seen) == 1


def test_a_later_call_s_time_in_the_queue_and_to_the_first_token_holds() -> None:
    async def main() -> None:
        server, last = Server(Script(first_after=1.0)), by(5.0)
        running = server.ask("running", within(10.0))
        await asyncio.sleep(0)
        first = server.ask("key", within(10.0, start_by=by(0.1), first_by=by(0.2)))
        await asyncio.sleep(0)
        second = server.ask("key", within(10.0, start_by=by(1.5), first_by=last))
        assert [await each for each in (running, first, second)] == [4, 4, 4]
        assert len(server.backend.calls) == 2
        assert server.backend.calls[1].context.first_by == last

    run_in_virtual_time(main())


@pytest.mark.parametrize("joins", [True, False])
def test_without_a_later_call_the_first_one_s_time_is_over(joins: bool) -> None:
    """A first token that is late stops the work, also where a joining call gives it no more time."""

    async def main() -> None:
        server, begun = Server(Script(first_after=1.0)), asyncio.get_running_loop().time()
        asked = [server.ask("key", within(10.0, first_by=by(0.2)))]
        await asyncio.sleep(0)
        if joins:
            asked.append(server.ask("key", within(10.0, first_by=by(0.1))))
        for each in asked:
            with pytest.raises(AttemptError, match="no first token"):
                await each
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.2)

    run_in_virtual_time(main())


def test_an_urgent_call_hastens_the_work_that_it_joins() -> None:
    async def main() -> None:
        server = Server(Script())
        running = server.ask("running", within(10.0))
        await asyncio.sleep(0)
        asked = [
            server.ask(key, within(10.0, priority=priority))
            for key, priority in (("slow", Priority.LOW), ("usual", Priority.NORMAL), ("slow", Priority.LOW))
        ]
        await asyncio.sleep(0)
        asked.append(server.ask("slow", within(10.0, priority=Priority.HIGH)))
        await asyncio.gather(running, *asked)
        priorities = [call.context.priority for call in server.backend.calls[1:]]
        assert priorities == [Priority.HIGH, Priority.NORMAL]

    run_in_virtual_time(main())


def test_work_whose_time_is_up_is_joined_by_nobody() -> None:
    """Its engine may still be stopping. Whoever comes then begins anew, with the time of its own."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server, over = Server(Script(first_after=1.0)), loop.time() + 0.5
        late = server.ask("key", within(0.5))
        await asyncio.sleep(0.4)
        joined: list[asyncio.Task[int]] = []
        loop.call_at(over, lambda: joined.append(server.ask("key", within(10.0))))
        with pytest.raises(AttemptError) as caught:
            await late
        assert caught.value.kind is FailureKind.TIMED_OUT
        assert await joined[0] == 4

    run_in_virtual_time(main())
