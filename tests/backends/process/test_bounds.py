"""Python from outside is held to its time and memory, and nothing of it stays behind."""

from __future__ import annotations

import resource
import sys
import threading
import time

import pytest

from edgewise.backends.process.bounds import BeyondBounds, Bounds

BOUNDS = Bounds(seconds=0.1, memory=256 << 20)


def for_ever() -> None:
    while True:
        pass


def test_what_ends_in_time_gives_its_result_and_its_own_exceptions() -> None:
    assert BOUNDS.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        BOUNDS.run(lambda: 1 // 0)


def test_what_never_ends_is_ended_and_what_follows_is_not() -> None:
    for _ in range(2):
        with pytest.raises(BeyondBounds):
            BOUNDS.run(for_ever)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # nothing arrives late
        assert BOUNDS.run(lambda: 7) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a size")
def test_what_wants_too_much_memory_gets_none_and_the_limit_is_gone_afterwards() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(BeyondBounds):
        BOUNDS.run(lambda: "a" * (8 << 30))
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_limit_is_gone_also_where_others_ran_at_the_same_time() -> None:
    """A template is rendered beside a schema that becomes a grammar: the limit of one is not put back for all."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    slow = Bounds(seconds=10.0, memory=256 << 20)
    begun, second_begun, ended = threading.Event(), threading.Event(), threading.Event()

    def meanwhile(say: threading.Event, hear: threading.Event, seconds: float) -> None:
        say.set()
        hear.wait(seconds)

    def first() -> None:
        slow.run(lambda: meanwhile(begun, second_begun, 0.2))
        ended.set()

    def second() -> None:
        begun.wait(10)
        Bounds(seconds=10.0, memory=256 << 20).run(lambda: meanwhile(second_begun, ended, 10))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_two_threads_are_held_one_by_one() -> None:
    ended = []

    def run() -> None:
        with pytest.raises(BeyondBounds):
            BOUNDS.run(for_ever)
        ended.append(True)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert ended == [True, True]
