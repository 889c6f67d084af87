"""Entries that somebody or something has altered: each becomes a dead letter, and all others go their way."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgewise.core.settings import FilePath
from edgewise.policies.facts import DeviceFacts
from edgewise.policies.plan import Plan
from edgewise.policies.settings import EncryptionSettings
from edgewise.router import AsyncRouter, DeadLetter, OutboxError
from edgewise.router.cli.queue import _as_dict
from edgewise.router.config import loads
from edgewise.router.outbox import Ending, Receipt, State, Store
from edgewise.router.outbox.schema import MIGRATIONS, migrate
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import CONFIGURATION, ROOMY, RouterMaker, alter, end_of, entry, loop_clock

COLUMNS = (
    *("id", "receipt", "idempotency_key", "state", "priority", "order_key", "submitted_at", "expires_at", "not_before"),
    *("sends", "strikes", "waits", "labels", "content", "answer", "bytes", "ending", "sentence", "ended_at", "taken"),
)
PLACES = (*COLUMNS, "leases.name", "leases.holder", "leases.expires_at", "seal.proof")
NO_TEXT = b"\xff\xfe"
"""Stands for bytes that are stored as text, and are none."""

Value = str | int | float | bytes | None
Alteration = tuple[int, str, Value]

values: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.binary(max_size=40),
    st.sampled_from(["queued", "answered", "dead", "expired", "{}", "[" * 5000, '{"messages": 7}', NO_TEXT, 0, 1, 7]),
)


def alter_column(path: Path, number: int, column: str, value: Value) -> None:
    """Alter one value of the n-th entry, or of another table."""
    put = "CAST(? AS TEXT)" if value is NO_TEXT else "?"
    table, _, other = column.partition(".")
    if other:
        with suppress(sqlite3.IntegrityError):  # what must not be NULL
            alter(path, f"UPDATE {table} SET {other} = {put}", value)
        return
    place = "(SELECT id FROM entries ORDER BY id LIMIT 1 OFFSET ?)"
    try:
        alter(path, f"UPDATE entries SET {column} = {put} WHERE id = {place}", value, number)
    except sqlite3.IntegrityError:
        assert column in ("id", "receipt", "idempotency_key"), "what is unique, and an id that is a number, stay so"


def notes(folder: Path, *, encrypted: bool) -> tuple[str, Path]:
    """A configuration, encrypted by a key of its own or not, and where its outbox is."""
    (folder / "key").write_text(secrets.token_hex(32))
    offline = "encryption: {key_file: key}" if encrypted else "queue_ttl: 24h"
    return CONFIGURATION.format(personal="[EU]", offline=offline), folder / "outbox.db"


def router_of(text: str, folder: Path, *, replay: bool) -> AsyncRouter:
    return AsyncRouter(
        loads(text, folder),
        backends={"cloud": ScriptedBackend("cloud")},
        random_source=random.Random(7),
        wall_clock=loop_clock,
        sample=DeviceFacts,
        replay=replay,
    )


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@example(alterations=[(0, "priority", 7), (1, "strikes", "many")], encrypted=False, at_work=False)
@example(alterations=[(0, "expires_at", "never"), (1, "state", None)], encrypted=False, at_work=True)
@example(alterations=[(0, "id", 2**63 - 1), (1, "bytes", 2**63 - 1)], encrypted=False, at_work=True)
@example(alterations=[(0, "labels", "[" * 5000), (1, "sentence", NO_TEXT)], encrypted=False, at_work=False)
@example(alterations=[(0, "seal.proof", b"x"), (0, "leases.expires_at", "never")], encrypted=True, at_work=True)
@example(alterations=[(0, "content", b"x"), (0, "labels", b"x")], encrypted=False, at_work=False)
@given(
    alterations=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(PLACES), values), min_size=1, max_size=4),
    encrypted=st.booleans(),
    at_work=st.booleans(),
)
def test_whatever_is_altered_the_others_go_on(
    alterations: Sequence[Alteration], encrypted: bool, at_work: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        complaints = Complaints()
        logging.getLogger("edgewise").addHandler(complaints)
        try:
            run_in_virtual_time(_day(Path(name), alterations, encrypted, at_work))
        finally:
            logging.getLogger("edgewise").removeHandler(complaints)
        assert [text for text in complaints.texts if "defect" in text or "set aside" in text] == []


class Complaints(logging.Handler):
    """What the log was told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(record.getMessage())


async def _day(folder: Path, alterations: Sequence[Alteration], encrypted: bool, at_work: bool) -> None:
    text, path = notes(folder, encrypted=encrypted)
    async with router_of(text, folder, replay=True) as router:
        answered = await router.submit("answered")
        assert await router.result(answered, timeout="1m") is not None
        router.connectivity.force("offline")
        altered = [answered, *[await router.submit(f"note {number}", order_key="a") for number in range(3)]]
        others = [await router.submit(f"other {number}") for number in range(2)]
        if at_work:
            for number, column, value in alterations:
                alter_column(path, number, column, value)
            await _hold(router, altered, others, alterations)
    if not at_work:
        for number, column, value in alterations:
            alter_column(path, number, column, value)
        async with router_of(text, folder, replay=True) as router:
            await _hold(router, altered, others, alterations)
    encryption = EncryptionSettings(key_file=FilePath(str(folder / "key"))) if encrypted else None
    store = Store(path, encryption)
    for each in store.all(loop_clock().timestamp()):
        _as_dict(each, with_content=True)
        assert each.state is not State.QUEUED
    store.close()


async def _hold(
    router: AsyncRouter, altered: Sequence[Receipt], others: Sequence[Receipt], by: Sequence[Alteration]
) -> None:
    router.connectivity.force(None)
    for receipt in others:
        assert await end_of(router, receipt) == "answered"
    # After the first was altered, their order may be another one.
    ends = {await end_of(router, receipt) for receipt in altered}
    allowed = {"answered", *(ending.value for ending in Ending)}
    if {column for _, column, _ in by} & {"receipt", "ended_at"}:
        allowed.add("not known")
    assert ends <= allowed
    more = await router.submit("one more")
    assert await end_of(router, more) == "answered"
    assert more in [result.receipt async for result in router.results()]


@pytest.mark.parametrize("column", ["priority", "strikes", "expires_at", "state"])
def test_what_was_altered_is_told_as_unreadable_and_its_content_erased(
    make_router: RouterMaker, path: Path, tmp_path: Path, column: str
) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True) as router:
            router.connectivity.force("offline")
            receipt = await router.submit("Zebulon Quartz")
            alter_column(path, 0, column, "a text")
            await asyncio.sleep(70)
            with pytest.raises(DeadLetter, match="altered or damaged") as caught:
                await router.result(receipt)
            assert caught.value.reason == "unreadable"
        assert not any(b"Zebulon" in file.read_bytes() for file in tmp_path.iterdir())

    run_in_virtual_time(main())


def test_what_no_entry_can_be_cannot_be_written(store: Store, path: Path) -> None:
    store.add(entry("a"), ROOMY)
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for column in ("priority", "strikes", "expires_at", "state", "receipt", "labels", "ended_at"):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            connection.execute(f"UPDATE entries SET {column} = -7")
    connection.close()


def test_an_altered_value_is_told_where_the_extra_is_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(path)
    for name in "ab":
        store.add(entry(name, content="x" * 20), ROOMY)
    alter(path, "UPDATE entries SET content = CAST(content AS BLOB) WHERE receipt = 'a'")
    for module in ("cryptography", "cryptography.exceptions"):
        monkeypatch.setitem(sys.modules, module, None)
    assert {(each.receipt, each.ending) for each in store.all(1001.0)} == {("a", Ending.UNREADABLE), ("b", None)}


def test_a_file_of_the_first_version_goes_on_with_its_altered_entries_told(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, MIGRATIONS[:1])
    put = (
        "INSERT INTO entries (receipt, idempotency_key, state, priority, submitted_at, expires_at, labels, content, "
        "bytes) VALUES (?, ?, 'queued', ?, 1000.0, 9000.0, '{}', '\"x\"', 3)"
    )
    for name, priority in (("a", 1), ("b", 7), ("c", 2)):
        connection.execute(put, (name, f"key {name}", priority))
    connection.close()
    store = Store(path)
    assert [each.receipt for each in store.due(1001.0, 900.0)] == ["c", "a"]
    found = {str(each.receipt): (each.state, each.ending, each.content) for each in store.all(1001.0)}
    assert found["b"] == (State.DEAD, Ending.UNREADABLE, None)
    assert found["a"] == (State.QUEUED, None, '"x"')


@pytest.mark.parametrize("where", ["an index", "anywhere"])
def test_flips_anywhere_in_the_file_leave_an_outbox_that_works(path: Path, where: str) -> None:
    store = Store(path)
    for number in range(30):
        store.add(entry(f"{number:032}", content="x" * 300), ROOMY)
    store.close()
    whole = path.read_bytes()
    dice = random.Random(5)
    for _ in range(15):
        data = bytearray(whole)
        if where == "anywhere":
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        else:
            at = dice.choice([at for at in range(len(data) - 32) if data[at : at + 6] == b"queued"])
            data[at] ^= 1
        path.write_bytes(bytes(data))
        hurt = Store(path)
        try:
            for _ in range(3):  # damage that is found at work is mended by the next use
                try:
                    hurt.add(entry("new"), ROOMY)
                    hurt.condemn_altered(1001.0)
                    hurt.all(1001.0)
                    hurt.bury("new", Ending.CANCELLED, "it was cancelled", 1001.0)
                    for number in range(0, 30, 10):
                        hurt.drop(f"{number:032}", 1001.0)
                except OutboxError:
                    continue
                break
            else:
                raise AssertionError("it never works again")
        finally:
            hurt.close()
            for file in path.parent.glob("outbox.db?*"):
                file.unlink()


def test_a_defect_ends_neither_the_replay_nor_what_other_requests_wait_for(
    make_router: RouterMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole_plan, whole_generate, whole_due = AsyncRouter.plan, AsyncRouter.generate, Store.due
    failures = iter([True] * 3)

    def asks(prompt: object) -> str:
        assert isinstance(prompt, list)
        return str(prompt[0].text)

    def due(self: Store, *arguments: object) -> object:
        if next(failures, False):
            raise LookupError("Zebulon Quartz")
        return whole_due(self, *arguments)  # type: ignore[arg-type]

    async def plan(self: AsyncRouter, prompt: object, **options: object) -> Plan:
        if asks(prompt) == "unplannable":
            raise LookupError("Zebulon Quartz")
        return await whole_plan(self, prompt, **options)  # type: ignore[arg-type]

    async def generate(self: AsyncRouter, prompt: object, **options: object) -> object:
        if asks(prompt) == "unsendable":
            raise LookupError("Zebulon Quartz")
        return await whole_generate(self, prompt, **options)  # type: ignore[arg-type]

    async def main() -> None:
        async with make_router(ScriptedBackend("cloud"), replay=True, offline="max_sends: 3") as router:
            waits = await router.submit("unplannable", priority="high")
            poison = await router.submit("unsendable", priority="high")
            fine = await router.submit("Hello")
            assert await router.result(fine, timeout="1m") is not None
            assert await router.result(waits, timeout="1h") is None
            with pytest.raises(DeadLetter) as caught:
                await router.result(poison, timeout="1h")
            assert caught.value.reason == "poison"

    monkeypatch.setattr(AsyncRouter, "plan", plan)
    monkeypatch.setattr(AsyncRouter, "generate", generate)
    monkeypatch.setattr(Store, "due", due)
    run_in_virtual_time(main())
    for what in ("cannot be planned", "could not be sent", "is not replayed"):
        assert f"{what}" in caplog.text
    assert "LookupError in test_altered.py" in caplog.text
    assert "Zebulon" not in caplog.text
