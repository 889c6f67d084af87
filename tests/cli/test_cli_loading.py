"""Bars for models that load."""

from __future__ import annotations

import asyncio
import io

from rich.console import Console

from edgewise.router.cli.loading import bars


async def test_a_bar_goes_on_with_the_loading_and_away_with_its_end() -> None:
    shown = io.StringIO()
    looked = 0
    steps: list[dict[str, float | None]] = [{"phone": 0.1, "words": None}, {"phone": 0.9}, {}]
    seen_all = asyncio.Event()

    def loading() -> dict[str, float | None]:
        nonlocal looked
        looked += 1
        if looked == len(steps):
            seen_all.set()
        return steps[min(looked, len(steps)) - 1]

    async with asyncio.timeout(10), bars(Console(file=shown, force_terminal=True, width=80), loading):
        await seen_all.wait()
    assert "loading phone" in shown.getvalue()
    assert "loading words" in shown.getvalue()


async def test_where_there_is_no_terminal_nobody_looks() -> None:
    def loading() -> dict[str, float | None]:
        raise AssertionError("nobody looks at bars that are not drawn")

    shown = io.StringIO()
    async with bars(Console(file=shown), loading):
        await asyncio.sleep(0)
    assert shown.getvalue() == ""
