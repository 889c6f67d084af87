"""What a router relies on where a stream's connection was lost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from dataclasses import replace

from ...core.answer import Delta, GenerateEvent
from ...core.failure import FailureKind
from ..backend import Backend, CallContext
from .suite import Suite, failure, on_loop


class ResumptionTests(Suite):
    """For backends whose capabilities say that they resume. Greedy answers must be alike."""

    @classmethod
    async def lose(cls, backend: Backend) -> None:
        """Cut the connections of all its streams, as a network does."""
        raise NotImplementedError(f"{cls.__name__} does not say how a connection is lost: define lose()")

    @on_loop
    async def test_a_stream_that_was_lost_goes_on_where_it_stopped(self) -> None:
        assert self.backend.capabilities.resumes
        call = self.call(max_output_tokens=48)
        whole, _ = await self.answer(call)
        for read in (1, 2, 7):
            context = self._named()
            stream = self.backend.generate(call, context)
            taken = [await anext(stream) for _ in range(read)]
            reading = asyncio.create_task(_take_all(stream, taken))
            await self.lose(self.backend)
            lost = await failure(reading, "a stream that was lost")
            assert lost.kind is FailureKind.UNREACHABLE
            rest = [event async for event in self.backend.resume(len(taken), context)]
            text = "".join(event.text for event in (*taken, *rest) if isinstance(event, Delta))
            assert text == whole, f"lost after {len(taken)} events, it went on otherwise"
            assert not isinstance(rest[-1], Delta), "a resumed stream ended without a Finish"

    @on_loop
    async def test_a_stream_that_nobody_began_cannot_be_resumed(self) -> None:
        unknown = await failure(_take_all(self.backend.resume(1, self._named()), []), "resuming what nobody began")
        assert unknown.kind is FailureKind.CONFLICT

    @on_loop
    async def test_a_resumption_whose_deadline_has_passed_has_timed_out(self) -> None:
        late = replace(self._named(), deadline=self.context(seconds=-1.0).deadline)
        refused = await failure(_take_all(self.backend.resume(1, late), []), "a resumption whose deadline had passed")
        assert refused.kind is FailureKind.TIMED_OUT

    def _named(self) -> CallContext:
        return replace(self.context(), stream=secrets.token_hex(16))


async def _take_all(stream: AsyncGenerator[GenerateEvent, None], taken: list[GenerateEvent]) -> None:
    async for event in stream:
        taken.append(event)  # noqa: PERF401  # what came before a failure counts
