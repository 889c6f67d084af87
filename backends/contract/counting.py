"""What a router relies on in counts of tokens."""

from __future__ import annotations

import asyncio

from ...core.content import CountTokensInput, Message
from ...core.request import Task
from .suite import MARKER, SECONDS_TO_STOP, Suite, on_loop, outcome


class CountingTests(Suite):
    """For backends that `count_tokens`, and generate."""

    @on_loop
    async def test_a_prompt_is_counted_as_a_generation_counts_it(self) -> None:
        counted = await self.backend.count_tokens(CountTokensInput(self.prompt), self.context())
        _, finish = await self.answer(self.call(max_output_tokens=1))
        assert counted == finish.usage.prompt_tokens

    @on_loop
    async def test_more_messages_have_more_tokens_even_beyond_the_context(self) -> None:
        window = self.backend.capabilities.context_tokens or 1000
        turned = (*self.prompt, Message.assistant("One."), Message.user("And?"))
        longer = (*self.prompt, Message.assistant("One."), Message.user("two " * window))
        one, turn, long = await asyncio.gather(
            *(
                self.backend.count_tokens(CountTokensInput(messages), self.context())
                for messages in (self.prompt, turned, longer)
            )
        )
        assert 0 < one < turn <= long, "not all messages are counted"

    @on_loop
    async def test_counting_waits_for_no_generation(self) -> None:
        self.require_honoured(self.streams, "a stream")
        taken = min(self.backend.capabilities.max_concurrency, self.concurrent)
        streams = [self.backend.generate(self.call(max_output_tokens=512), self.context()) for _ in range(taken)]
        try:
            for stream in streams:
                await anext(stream)
            async with asyncio.timeout(SECONDS_TO_STOP):
                await self.ask(Task.COUNT_TOKENS)
        except TimeoutError:
            raise AssertionError("counting waits until a generation has ended") from None
        finally:
            for stream in streams:
                await stream.aclose()

    @on_loop
    async def test_odd_prompts_to_count_fail_as_attempts_and_leave_it_whole(self) -> None:
        await outcome(self.backend.count_tokens(CountTokensInput((Message.user(f"{MARKER} \ud800"),)), self.context()))
        await self.ask(Task.COUNT_TOKENS)
