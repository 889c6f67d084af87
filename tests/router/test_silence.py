"""After how long a pause within its answer a backend is taken over from."""

from __future__ import annotations

import asyncio
import math

import pytest

from edgewise.router.execution.silence import Silence
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker


def test_a_pause_is_too_long_by_its_limit_or_sooner_where_others_would_be_too_late() -> None:
    silence = Silence(limit=2.0, least=0.25, last_safe=11.0)
    assert silence.due(5.0) == 7.0
    assert silence.due(10.0) == 11.0
    assert silence.due(10.9) == 11.15
    assert silence.due(20.0) == 20.25
    assert Silence(limit=2.0, least=0.25, last_safe=math.inf).due(20.0) == 22.0


@pytest.mark.parametrize(
    ("every", "low", "high"),
    [(0.001, 0.5, 0.55), (0.1, 2.1, 2.4), (3.0, 9.9, 10.1)],
    ids=["quick", "of twenty tokens' time", "slow"],
)
def test_it_is_measured_by_the_backend_s_own_pace(
    make_router: RouterMaker, every: float, low: float, high: float
) -> None:
    """Half a second at least, ten at most, and between them twenty times what 95 % of its pauses stay under."""
    words = tuple(f"w{number} " for number in range(4))

    def script(number: int) -> Script:
        return Script(words, every=every, silent_after=2 if number == 40 else None)

    cloud, gateway = ScriptedBackend("cloud", script), ScriptedBackend("gateway")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, gateway) as router:
            for _ in range(40):
                await router.generate("Hello", data_class="public", backend="cloud", latency_budget=60.0)
            at: list[float] = []
            async for chunk in router.stream("Hello", data_class="public", latency_budget=600.0):
                at.append(loop.time())
                if chunk.seam is not None:
                    break
        assert chunk.seam is not None
        assert low <= at[-1] - at[-2] <= high + 0.02

    run_in_virtual_time(main())


def test_where_the_last_safe_moment_has_come_a_short_silence_is_enough(make_router: RouterMaker) -> None:
    """Five times the usual pause, and 50 ms at least: whoever goes on needs the time that is left."""
    words = tuple(f"w{number} " for number in range(8))
    usual, needs = Script(words, every=0.02), Script(words, every=0.4)
    cloud = ScriptedBackend(
        "cloud", lambda number: Script(words, every=0.02, silent_after=4) if number == 40 else usual
    )
    gateway = ScriptedBackend("gateway", needs)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with make_router(cloud, gateway) as router:
            for name in ("cloud", "gateway"):
                for _ in range(40):
                    await router.generate("Hello", data_class="public", backend=name, latency_budget=60.0)
            at: list[float] = []
            async for chunk in router.stream("Hello", data_class="public", latency_budget=2.9):
                at.append(loop.time())
                if chunk.seam is not None:
                    break
        assert chunk.seam is not None
        silent = at[-1] - at[-2] - 0.01
        assert 0.105 <= silent <= 0.12

    run_in_virtual_time(main())
