from __future__ import annotations

import asyncio

import pytest

from edgewise.backends.process.turns import Turns
from edgewise.core.request import Priority


async def test_a_turn_that_comes_in_the_moment_of_a_cancellation_is_not_lost() -> None:
    turns = Turns(1)
    turns.open()
    await turns.take(Priority.NORMAL)
    waiter = asyncio.create_task(turns.take(Priority.NORMAL))
    await asyncio.sleep(0)
    assert turns.waiting == 1
    turns.give_back()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(1):
        await turns.take(Priority.NORMAL)
