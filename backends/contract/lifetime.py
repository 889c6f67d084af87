"""From before its start to after its stop: readiness, refusals, and what never shows."""

from __future__ import annotations

import asyncio

from ...core.failure import FailureKind
from ...core.request import Task
from ..backend import Backend, BackendHealth, Capabilities, HealthState
from .suite import Suite, cancel, failure, on_loop, outcome, perform

_STOPPED = {FailureKind.PREEMPTED, FailureKind.UNREACHABLE, FailureKind.MODEL_UNAVAILABLE}


class LifetimeTests(Suite):
    """What holds whatever a backend can do."""

    def test_it_says_what_it_can_do(self) -> None:
        capabilities = self.backend.capabilities
        assert isinstance(capabilities, Capabilities)
        assert capabilities.tasks, "a backend that can do nothing answers nothing"
        assert capabilities.max_concurrency >= 1
        assert self.backend.name

    @on_loop
    async def test_it_is_ready_once_started(self) -> None:
        health = self.backend.health()
        assert isinstance(health, BackendHealth), "health() returns at once, and is no coroutine"
        assert health.state is HealthState.READY

    @on_loop
    async def test_its_health_is_told_at_once_while_it_works(self) -> None:
        clock = asyncio.get_running_loop().time
        work = asyncio.create_task(self.ask(next(iter(self.backend.capabilities.tasks))))
        await asyncio.sleep(0)
        took = []
        for _ in range(9):
            start = clock()
            assert self.backend.health().state is HealthState.READY
            took.append(clock() - start)
        await work
        assert sorted(took)[4] < 0.01, "health() tells what is known, and asks nobody"

    @on_loop
    async def test_what_it_cannot_do_is_unsupported(self) -> None:
        for task in sorted(set(Task) - self.backend.capabilities.tasks):
            refused = await failure(self.ask(task), f"{task}, which its capabilities do not name,")
            assert refused.kind is FailureKind.UNSUPPORTED

    @on_loop
    async def test_a_call_whose_deadline_has_passed_has_timed_out(self) -> None:
        for task in sorted(self.backend.capabilities.tasks):
            late = await failure(self.ask(task, context=self.context(seconds=-1.0)), "a call whose deadline had passed")
            assert late.kind is FailureKind.TIMED_OUT
            await self.ask(task)

    @on_loop
    async def test_as_many_calls_as_it_takes_and_some_more_are_all_answered(self) -> None:
        together = min(self.backend.capabilities.max_concurrency, self.concurrent) + 2
        for task in sorted(self.backend.capabilities.tasks):
            ended = await asyncio.gather(*(outcome(self.ask(task)) for _ in range(together)))
            assert ended == [None] * together, f"of calls that {task} at once, some failed: {ended}"

    @on_loop
    async def test_calls_may_come_while_it_starts(self) -> None:
        async with self.opened() as backend:
            starting = asyncio.create_task(backend.start())
            try:
                await asyncio.sleep(0)
                await asyncio.gather(*(self.ask(task, backend=backend) for task in backend.capabilities.tasks))
                await starting
            finally:
                await backend.stop()

    @on_loop
    async def test_a_change_of_the_network_costs_no_call(self) -> None:
        for kind in FailureKind:
            assert self.backend.is_mended(kind) in {False, True}, "it is told at once, and is no coroutine"
        task = min(self.backend.capabilities.tasks)
        under_way = asyncio.create_task(self.ask(task))
        await asyncio.sleep(0)
        await self.backend.network_changed()
        await under_way
        assert await outcome(self.backend.probe(self.patience)) is None, "it answers, and its probe fails"
        await self.ask(task)

    @on_loop
    async def test_stopping_ends_its_calls_and_refuses_more_however_often(self) -> None:
        async with self.opened() as backend:
            await backend.start()
            tasks = sorted(backend.capabilities.tasks)
            running = [asyncio.create_task(self._until_stopped(backend, task)) for task in tasks]
            await asyncio.sleep(0)
            await backend.stop()
            for ended in await asyncio.gather(*running):
                assert ended is None or isinstance(ended, FailureKind)
            await backend.stop()
            assert backend.health().state is not HealthState.READY, "it is stopped, and says that it is ready"
            for task in tasks:
                refused = await failure(self.ask(task, backend=backend), "a call after stop()")
                assert refused.kind in _STOPPED, f"a call after stop() failed with {refused.kind}"

    @on_loop
    async def test_it_can_be_stopped_without_a_start(self) -> None:
        async with self.opened() as backend:
            await backend.stop()
            await backend.stop()

    @on_loop
    async def test_cancelling_a_call_at_any_moment_frees_its_place(self) -> None:
        places = min(self.backend.capabilities.max_concurrency, self.concurrent)
        for task in sorted(self.backend.capabilities.tasks):
            for turns in list(range(6)) * (places + 1):  # one that is lost each time shows
                work = asyncio.create_task(self.ask(task))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cancel(work)
            await self.becomes_idle()
            await self.ask(task)

    async def _until_stopped(self, backend: Backend, task: Task) -> FailureKind | None:
        content = self.call(max_output_tokens=512) if task is Task.GENERATE else self.content(task)
        return await outcome(perform(backend, content, self.context()))
