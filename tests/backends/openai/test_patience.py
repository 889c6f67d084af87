"""One timer for all waits of a call strikes the wait it should, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.backends.openai.patience import Patience
from edgewise.testing import run_in_virtual_time


async def sleeps() -> None:
    await asyncio.sleep(10.0)


async def at_once() -> str:
    return "done"


def test_it_strikes_a_wait_and_lets_no_other_begin() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        patience = Patience(loop.time() + 3.0)
        assert await patience.wait(at_once) == "done"
        began = loop.time()
        with pytest.raises(TimeoutError):
            await patience.wait(sleeps)
        assert loop.time() - began == pytest.approx(3.0)
        with pytest.raises(TimeoutError):
            await patience.wait(at_once)
        await asyncio.sleep(1.0)  # no cancellation was left behind
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run_in_virtual_time(main())


def test_whoever_is_between_two_waits_is_not_struck() -> None:
    async def main() -> None:
        patience = Patience(asyncio.get_running_loop().time() + 1.0)
        await asyncio.sleep(5.0)
        with pytest.raises(TimeoutError):
            await patience.wait(at_once)

    run_in_virtual_time(main())


@pytest.mark.parametrize("ended_too", [False, True])
def test_a_cancellation_by_somebody_else_passes(ended_too: bool) -> None:
    async def main() -> None:
        patience = Patience(asyncio.get_running_loop().time() + 100.0)
        waiting = asyncio.ensure_future(patience.wait(sleeps))
        await asyncio.sleep(0)
        if ended_too:
            patience.end()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_in_virtual_time(main())
