"""Looking a name up and opening a connection, by the system's own means."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from edgewise.backends.endpoint import Endpoint
from edgewise.core.failure import PathFault
from edgewise.router.link import opening
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


async def test_a_name_is_looked_up_anew_while_questions_asked_during_an_outage_still_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resolver repeats a lost question only after seconds: the link's return must not wait for that."""
    asked = 0
    back, end = threading.Event(), threading.Event()

    def hangs_where_it_was_lost(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        if not back.is_set():
            end.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listening.getsockname())]

    opener, endpoint = Opener(), Endpoint("cloud.example", 443)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(socket, "getaddrinfo", hangs_where_it_was_lost)
        with pytest.raises(Unopened):
            await opener.open(endpoint, patience=0.5)
        assert asked == 1
        back.set()
        begun = asyncio.get_running_loop().time()
        assert (await opener.open(endpoint, patience=5.0)).address == "127.0.0.1"
        assert asyncio.get_running_loop().time() - begun < 1.0
        assert asked == 2
    end.set()


async def test_no_more_than_a_few_lookups_of_a_name_hang_and_the_last_failure_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    end = threading.Event()

    def hangs(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        nonlocal asked
        asked += 1
        end.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(opening, "LOOK_UP_EVERY", 0.01)
    opener, endpoint = Opener(), Endpoint("cloud.example", 443)
    with pytest.raises(Unopened):
        await opener.open(endpoint, patience=0.5)
    assert asked == opening.MOST_LOOKUPS
    waiting = asyncio.create_task(opener.open(endpoint, patience=60.0))
    asyncio.get_running_loop().call_later(0.05, end.set)
    with pytest.raises(Unopened):
        async with asyncio.timeout(5):
            await waiting
