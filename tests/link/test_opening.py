"""Looking a name up and opening a connection, by the system's own means."""

from __future__ import annotations

import asyncio

import pytest

from edgewise.backends.endpoint import Endpoint
from edgewise.core.failure import PathFault
from edgewise.router.link.network import Unopened
from edgewise.router.link.opening import Opener


@pytest.mark.parametrize("host", ["a..b.example", "x" * 64 + ".example"])
async def test_what_can_be_no_name_is_told_at_once_each_time(host: str) -> None:
    opener = Opener()
    for _ in range(2):
        with pytest.raises(Unopened) as caught:
            async with asyncio.timeout(5):
                await opener.open(Endpoint(host, 443), patience=60.0)
        assert caught.value.fault is PathFault.NO_NAME
