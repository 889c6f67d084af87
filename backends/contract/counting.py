"""What a router relies on in counts of tokens."""

from __future__ import annotations

import asyncio

from ...core.content import CountTokensInput, Message
from ...core.request import Task
from .suite import MARKER, Suite, on_loop, outcome


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
        longer = (*self.prompt, Message.assistant("One."), Message.user("two " * window))
        short, long = await asyncio.gather(
            *(
                self.backend.count_tokens(CountTokensInput(messages), self.context())
                for messages in (self.prompt, longer)
            )
        )
        assert 0 < short < long

    @on_loop
    async def test_odd_prompts_to_count_fail_as_attempts_and_leave_it_whole(self) -> None:
        await outcome(self.backend.count_tokens(CountTokensInput((Message.user(f"{MARKER} \ud800"),)), self.context()))
        await self.ask(Task.COUNT_TOKENS)
