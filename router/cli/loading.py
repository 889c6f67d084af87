"""Shows how far models are in loading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ...backends import HealthState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from ..client.async_router import AsyncRouter

_LOOK_EVERY = 0.1

Loading = Callable[[], Mapping[str, float | None]]
"""The backends that load now, each with how much of it is done, from 0 to 1; ``None`` where that is not known."""


def loading_of(router: AsyncRouter) -> Loading:
    """What loads of a router's backends."""

    def look() -> dict[str, float | None]:
        backends = router.stats().backends
        return {name: each.progress for name, each in backends.items() if each.health is HealthState.LOADING}

    return look


@asynccontextmanager
async def bars(on: Console, loading: Loading) -> AsyncIterator[None]:
    """A bar for every backend that loads, while the block runs. On a terminal only."""
    if not on.is_terminal:
        yield
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("loading {task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=on, transient=True) as progress:
        drawing = asyncio.create_task(_draw(progress, loading))
        try:
            yield
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)


async def _draw(progress: Progress, loading: Loading) -> None:
    rows: dict[str, TaskID] = {}
    while True:
        now = loading()
        for name in rows.keys() - now.keys():
            progress.remove_task(rows.pop(name))
        for name, share in now.items():
            if name not in rows:
                rows[name] = progress.add_task(name, total=None)
            if share is not None:
                progress.update(rows[name], total=1.0, completed=share)
        await asyncio.sleep(_LOOK_EVERY)
