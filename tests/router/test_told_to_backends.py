"""What a backend is told beside the content: its budgets, and where the content may go."""

from __future__ import annotations

import pytest

from edgewise.core.permit import Bounds
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import RouterMaker


def test_budgets_are_instants_that_count_from_the_entry(make_router: RouterMaker) -> None:
    cloud = ScriptedBackend("cloud", Script(first_after=0.2, every=0.1))

    async def main() -> None:
        async with make_router(cloud) as router:
            for _ in range(40):
                await router.generate("Hello", data_class="public")
            [chunk async for chunk in router.stream("Hello", data_class="public", first_token_budget=2.0)]

    run_in_virtual_time(main())
    first, *_, last = (call.context for call in cloud.calls)
    assert (first.start_by, first.first_by) == (None, None)  # nobody knows yet how long it takes, or asked
    assert last.first_by is not None
    assert last.deadline.at - last.first_by.at == pytest.approx(28.0)
    assert last.start_by is not None
    # An answer takes 0.4 s there, and is predicted to take a little more: what starts later ends too late.
    assert 0.4 <= last.deadline.at - last.start_by.at < 1.0


@pytest.mark.parametrize(
    ("data_class", "bounds"),
    [("public", Bounds(None)), ("health", Bounds(frozenset({"site:praxis"})))],
)
def test_bounds_are_those_of_the_newest_walls(data_class: str, bounds: Bounds, make_router: RouterMaker) -> None:
    gateway = ScriptedBackend("gateway")

    async def main() -> None:
        async with make_router(gateway) as router:
            await router.generate("Hello", data_class=data_class)
            await router.embed(["Hello"], data_class=data_class)

    run_in_virtual_time(main())
    assert [call.context.bounds for call in gateway.calls] == [bounds, bounds]
