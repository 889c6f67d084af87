"""What the store keeps, in which order it gives it out, what gives way, and what is erased."""

from __future__ import annotations

import random
import resource
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.core.request import Priority
from edgewise.policies.settings import WhenFull
from edgewise.router import OutboxError, OutboxFull
from edgewise.router.outbox import Ending, Lease, Quota, Receipt, State, Store

from .conftest import ROOMY, entry

NOW = 1000.0
SECRET = "Zebulon Quartz has the flu"


def turn(store: Store, *passing_over: str, now: float = NOW) -> list[str]:
    return [each.receipt for each in store.due(now, 900.0, passing_over)]


def on_disk(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))


@pytest.fixture
def lease(store: Store) -> Iterator[Lease]:
    store.database.create()
    lease = Lease(store.database, "us")
    assert lease.take(NOW)
    yield lease
    store.close()


def test_an_entry_is_there_for_another_process_once_it_was_added(store: Store, path: Path) -> None:
    assert store.add(entry("a", content=SECRET), ROOMY) == "a"
    found = Store(path).find("a", NOW)
    assert found is not None
    assert (found.state, found.content, found.idempotency_key) == (State.QUEUED, SECRET, "key-a")
    assert store.find("b", NOW) is None


def test_the_files_are_for_their_owner_alone(store: Store, path: Path) -> None:
    path.touch(mode=0o644)
    store.add(entry("a"), ROOMY)
    files = list(path.parent.iterdir())
    assert len(files) == 4  # the database, its log, the log's index, the lock
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_commit_is_as_durable_as_sqlite_can(store: Store) -> None:
    store.add(entry("a"), ROOMY)
    with store.database.reading() as connection:
        pragmas = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


def test_the_same_key_again_is_the_same_request(store: Store) -> None:
    store.add(entry("a"), ROOMY)
    assert store.add(replace(entry("b"), idempotency_key="key-a"), ROOMY) == "a"
    assert turn(store) == ["a"]


def test_priority_goes_first_then_age(store: Store) -> None:
    for name, priority in (("a", Priority.LOW), ("b", Priority.NORMAL), ("c", Priority.HIGH), ("d", Priority.NORMAL)):
        store.add(entry(name, priority=priority), ROOMY)
    assert turn(store) == ["c", "b", "d", "a"]


def test_an_order_key_keeps_its_order_and_blocks_nobody_else(store: Store, lease: Lease) -> None:
    store.add(entry("first", order_key="patient-7"), ROOMY)
    store.add(entry("second", order_key="patient-7", priority=Priority.HIGH), ROOMY)
    store.add(entry("other", order_key="patient-8"), ROOMY)
    store.add(entry("free"), ROOMY)
    assert turn(store) == ["first", "other", "free"]
    assert turn(store, "first") == ["other", "free"]
    store.postpone(Receipt("first"), NOW + 60, "it waits", broken=False)
    assert turn(store) == ["other", "free"]
    assert store.begin_send(Receipt("first"), lease, NOW)
    assert store.finish(Receipt("first"), "{}", NOW)
    assert turn(store) == ["second", "other", "free"]


def test_an_entry_waits_for_its_time_unless_the_clock_was_set_back(store: Store) -> None:
    store.add(entry("a", at=0.0, ttl=1e9), ROOMY)
    store.postpone(Receipt("a"), NOW + 60, "it waits", broken=False)
    assert turn(store, now=NOW + 59) == []
    assert turn(store, now=NOW + 60) == ["a"]
    assert turn(store, now=NOW - 86400) == ["a"]
    store.wake()
    assert turn(store) == ["a"]


def test_what_outlives_its_time_is_a_dead_letter_without_content(store: Store, path: Path) -> None:
    store.add(entry("a", content=SECRET, ttl=60.0), ROOMY)
    assert turn(store, now=NOW + 59) == ["a"]
    assert turn(store, now=NOW + 60) == []
    found = store.find("a", NOW + 60)
    assert found is not None
    assert (found.state, found.ending, found.content, found.bytes) == (State.DEAD, Ending.EXPIRED, None, 0)
    assert SECRET.encode() not in on_disk(path)


@pytest.mark.parametrize("ended", ["cancelled", "dropped", "answered", "gave way"])
def test_content_that_is_over_is_on_the_disk_no_more(store: Store, path: Path, ended: str) -> None:
    secret = SECRET * 500  # more than a page: overflow pages are freed and must be overwritten
    store.add(entry("other"), ROOMY)
    store.add(entry("a", content=secret, priority=Priority.LOW), ROOMY)
    assert SECRET.encode() in on_disk(path)
    match ended:
        case "cancelled":
            assert store.bury("a", Ending.CANCELLED, "it was cancelled", NOW)
        case "dropped":
            assert store.drop("a", NOW)
        case "answered":
            assert store.finish(Receipt("a"), "{}", NOW)
        case _:
            store.add(entry("new"), Quota(2, 1_000_000, WhenFull.DROP_LOWEST))
    assert SECRET.encode() not in on_disk(path)
    found = store.find("a", NOW)
    assert found is not None
    assert found.content is None
    assert found.state is not State.QUEUED


def test_a_full_outbox_rejects(store: Store) -> None:
    store.add(entry("a"), Quota(1, 1000))
    with pytest.raises(OutboxFull, match="1 of 1 requests"):
        store.add(entry("b"), Quota(1, 1000))
    with pytest.raises(OutboxFull, match="bytes"):
        store.add(entry("c", content="x" * 100), Quota(9, 100))
    assert turn(store) == ["a"]


def test_the_oldest_gives_way(store: Store) -> None:
    for name, priority in (("a", Priority.HIGH), ("b", Priority.LOW)):
        store.add(entry(name, priority=priority), ROOMY)
    store.add(entry("c", priority=Priority.LOW), Quota(2, 1000, WhenFull.DROP_OLDEST))
    assert turn(store) == ["b", "c"]
    dropped = store.find("a", NOW)
    assert dropped is not None
    assert (dropped.ending, dropped.content) == (Ending.DROPPED, None)
    assert "newer request" in dropped.sentence


def test_the_lowest_gives_way_but_never_to_a_lower_one(store: Store) -> None:
    quota = Quota(2, 1000, WhenFull.DROP_LOWEST)
    for name, priority in (("a", Priority.HIGH), ("b", Priority.NORMAL)):
        store.add(entry(name, priority=priority), ROOMY)
    with pytest.raises(OutboxFull):
        store.add(entry("low", priority=Priority.LOW), quota)
    store.add(entry("c", priority=Priority.NORMAL), quota)
    assert turn(store) == ["a", "c"]


@pytest.mark.parametrize("when_full", list(WhenFull))
def test_what_could_never_fit_drops_nothing(store: Store, when_full: WhenFull) -> None:
    store.add(entry("a"), ROOMY)
    with pytest.raises(OutboxFull):
        store.add(entry("b", content="x" * 2000), Quota(9, 1000, when_full))
    assert turn(store) == ["a"]


def test_bytes_make_room_for_as_many_as_needed(store: Store) -> None:
    for name in "abc":
        store.add(entry(name, content="x" * 300), ROOMY)
    store.add(entry("d", content="x" * 500), Quota(9, 1000, WhenFull.DROP_OLDEST))
    assert turn(store) == ["c", "d"]


def test_only_the_first_answer_counts(store: Store) -> None:
    store.add(entry("a"), ROOMY)
    assert store.finish(Receipt("a"), '"one"', NOW)
    assert not store.finish(Receipt("a"), '"two"', NOW)
    assert not store.bury("a", Ending.CANCELLED, "too late", NOW)
    found = store.find("a", NOW)
    assert found is not None
    assert (found.state, found.answer) == (State.ANSWERED, '"one"')


def test_an_answer_after_the_cancellation_is_not_kept(store: Store) -> None:
    store.add(entry("a"), ROOMY)
    assert store.bury("a", Ending.CANCELLED, "it was cancelled", NOW)
    assert not store.finish(Receipt("a"), '"one"', NOW)
    found = store.find("a", NOW)
    assert found is not None
    assert (found.state, found.answer) == (State.DEAD, None)


def test_one_replays_at_a_time_and_a_crash_frees_it(store: Store, path: Path, lease: Lease) -> None:
    other = Lease(Store(path).database, "them")
    store.add(entry("a"), ROOMY)
    assert not other.take(NOW + 29)
    assert lease.take(NOW + 20)  # renewed
    assert not other.take(NOW + 40)
    assert other.take(NOW + 50)
    assert not lease.take(NOW + 51)
    assert not store.begin_send(Receipt("a"), lease, NOW + 51)
    assert store.begin_send(Receipt("a"), other, NOW + 51)
    other.release()
    assert lease.take(NOW + 52)


def test_a_lease_from_before_the_clock_was_set_back_is_over(path: Path, lease: Lease) -> None:
    other = Lease(Store(path).database, "them")
    assert other.take(NOW - 3600)


def test_a_send_that_nobody_heard_of_counts_and_one_we_stopped_does_not(store: Store, lease: Lease) -> None:
    store.add(entry("a"), ROOMY)
    receipt = Receipt("a")
    for _ in range(3):
        assert store.begin_send(receipt, lease, NOW)
    store.take_back([receipt])
    store.postpone(receipt, NOW, "the server was away", broken=False)
    found = store.find("a", NOW)
    assert found is not None
    assert (found.sends, found.strikes, found.waits) == (3, 1, 1)


def test_what_outlived_its_time_is_not_sent_even_before_anybody_noticed(store: Store, lease: Lease) -> None:
    store.add(entry("a", at=NOW, ttl=10), ROOMY)
    assert store.begin_send(Receipt("a"), lease, NOW + 9)
    assert not store.begin_send(Receipt("a"), lease, NOW + 10)


def test_a_poison_letter_can_be_tried_again_and_an_erased_one_cannot(store: Store) -> None:
    for name in "ab":
        store.add(entry(name), ROOMY)
    store.bury("a", Ending.POISON, "it broke something", NOW)
    store.bury("b", Ending.CANCELLED, "it was cancelled", NOW)
    assert turn(store) == []
    assert store.revive("a", NOW + 60)
    assert not store.revive("b", NOW + 60)
    assert turn(store) == ["a"]


def test_results_come_until_they_are_taken(store: Store) -> None:
    for name in "abc":
        store.add(entry(name), ROOMY)
    store.finish(Receipt("b"), "{}", NOW)
    store.bury("a", Ending.CANCELLED, "it was cancelled", NOW + 1)
    for expected in ("b", "a"):
        for _ in range(2):
            found = store.next_result(NOW + 2)
            assert found is not None
            assert found.receipt == expected
        store.take(Receipt(expected))
    assert store.next_result(NOW + 2) is None


def test_results_are_forgotten_in_the_end(store: Store) -> None:
    for name in "ab":
        store.add(entry(name), ROOMY)
    store.finish(Receipt("a"), SECRET, NOW)
    store.forget(NOW - 1)
    assert store.find("a", NOW) is not None
    store.forget(NOW)
    assert store.find("a", NOW) is None
    assert store.find("b", NOW) is not None


def test_many_threads_write_at_once(store: Store, path: Path) -> None:
    others = [store, Store(path), Store(path)]

    def write(which: int) -> None:
        for number in range(10):
            others[which % 3].add(entry(f"{which}-{number}"), ROOMY)

    threads = [threading.Thread(target=write, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(turn(store)) == 60


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    for file in range(20):
        together = threading.Barrier(6)

        def write(which: int, path: Path = tmp_path / f"{file}.db", together: threading.Barrier = together) -> None:
            together.wait()
            Store(path).add(entry(str(which)), ROOMY)

        threads = [threading.Thread(target=write, args=(which,)) for which in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(turn(Store(tmp_path / f"{file}.db"))) == 6


def test_a_full_disk_is_said_and_what_was_promised_is_kept(store: Store) -> None:
    store.add(entry("a", content=SECRET), ROOMY)
    with store.database.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(OutboxFull, match="no room on the disk"):
        store.add(entry("b", content="x" * 100_000), ROOMY)
    assert turn(store) == ["a"]
    assert store.find("b", NOW) is None
    assert store.finish(Receipt("a"), "{}", NOW)
    assert store.add(entry("c"), ROOMY) == "c"


def test_a_limit_on_the_size_of_files_is_said_and_what_was_promised_is_kept(store: Store) -> None:
    store.add(entry("a", content=SECRET), ROOMY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(OutboxError, match="limits on file sizes") as caught:
            store.add(entry("b", content=SECRET * 10_000), ROOMY)
        assert SECRET not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert turn(store) == ["a"]
    assert store.add(entry("c"), ROOMY) == "c"


@pytest.mark.parametrize("seed", [25, 33])
def test_what_was_erased_stands_nowhere_however_entries_were_moved_about(store: Store, path: Path, seed: int) -> None:
    """With these seeds, SQLite 3.40 leaves a copy in a page's gap."""
    dice = random.Random(seed)
    waiting: set[int] = set()
    for number in range(24):
        store.add(entry(str(number), content=f"Zebulon {number} " + "x" * dice.randrange(30, 1500)), ROOMY)
        waiting.add(number)
        while waiting and dice.random() < 0.5:
            chosen = dice.choice(sorted(waiting))
            waiting.discard(chosen)
            store.finish(Receipt(str(chosen)), "answered " * dice.randrange(1, 150), NOW)
    for number in sorted(waiting):
        store.finish(Receipt(str(number)), "answered " * 120, NOW)
    store.close()
    assert b"Zebulon" not in on_disk(path)
