"""An encrypted outbox that somebody altered, or that is opened with another key."""

from __future__ import annotations

import random
import secrets
import sqlite3
from pathlib import Path

import pytest

from edgewise.core.settings import FilePath
from edgewise.policies.settings import EncryptionSettings
from edgewise.router import AsyncRouter, OutboxLocked
from edgewise.router.outbox import Ending, Receipt, Store
from edgewise.router.outbox.schema import MIGRATIONS, migrate
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import ROOMY, START, RouterMaker, alter, end_of, entry


@pytest.mark.parametrize("of", [1, 3])
def test_any_flip_in_a_sealed_value_makes_one_dead_letter(
    make_router: RouterMaker, path: Path, tmp_path: Path, of: int
) -> None:
    """Wherever it is, be it the only request there is."""
    (tmp_path / "key").write_text(secrets.token_hex(32))

    def router(*, replay: bool) -> AsyncRouter:
        return make_router(ScriptedBackend("cloud"), offline="encryption: {key_file: key}", replay=replay)

    async def submit() -> list[Receipt]:
        async with router(replay=False) as one:
            return [await one.submit(f"Hello {number}") for number in range(of)]

    async def read() -> list[str]:
        async with router(replay=True) as one:
            return [await end_of(one, receipt) for receipt in receipts]

    receipts = run_in_virtual_time(submit())
    whole = path.read_bytes()
    dice = random.Random(of)
    for at in (0, 1, 8, 9, 12, 13, 20, -1):
        path.write_bytes(whole)
        _flip(path, receipts[0], "content", at, dice)
        if at % 2:
            _flip(path, receipts[0], "labels", at, dice)
        assert run_in_virtual_time(read()) == ["unreadable", *["answered"] * (of - 1)], at


def _flip(path: Path, receipt: str, column: str, at: int, dice: random.Random) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    (stored,) = connection.execute(f"SELECT {column} FROM entries WHERE receipt = ?", (receipt,)).fetchone()
    value = bytearray(stored)
    value[at] ^= 1 << dice.randrange(8)
    connection.execute(f"UPDATE entries SET {column} = ? WHERE receipt = ?", (bytes(value), receipt))
    connection.close()


def keyed(folder: Path, *keys: str) -> EncryptionSettings:
    (folder / "keys").write_text("\n".join(keys))
    return EncryptionSettings(key_file=FilePath(str(folder / "keys")))


@pytest.mark.parametrize("proof", ["as it is", "altered", "gone", "gone, and text put in"])
def test_a_wrong_key_destroys_nothing_whatever_else_was_altered(path: Path, tmp_path: Path, proof: str) -> None:
    right, wrong = secrets.token_hex(32), secrets.token_hex(32)
    store = Store(path, keyed(tmp_path, right))
    for name in "ab":
        store.add(entry(name, content=f'"{name}"'), ROOMY)
    store.close()
    _flip(path, "a", "content", 3, random.Random(1))
    if proof != "as it is":
        alter(path, "DELETE FROM seal" if proof.startswith("gone") else "UPDATE seal SET proof = x'00'")
    if proof == "gone, and text put in":
        alter(path, "UPDATE entries SET content = 'somebody else wrote this' WHERE receipt = 'a'")
    for locked in (Store(path, keyed(tmp_path, wrong)), Store(path)):
        for use in (Store.all, Store.condemn_altered, Store.expire):
            with pytest.raises(OutboxLocked):
                use(locked, START.timestamp())
    ends = {str(each.receipt): (each.ending, each.content) for each in Store(path, keyed(tmp_path, right)).all(1001.0)}
    assert ends == {"a": (Ending.UNREADABLE, None), "b": (None, '"b"')}


def test_text_put_into_an_encrypted_outbox_is_never_sent(path: Path, tmp_path: Path) -> None:
    store = Store(path, keyed(tmp_path, secrets.token_hex(32)))
    store.add(entry("a"), ROOMY)
    alter(path, "UPDATE entries SET content = 'somebody else wrote this'")
    assert [(each.ending, each.content) for each in store.all(1001.0)] == [(Ending.UNREADABLE, None)]


def test_a_process_with_the_old_key_neither_writes_by_it_nor_takes_the_new_for_damage(
    path: Path, tmp_path: Path
) -> None:
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    running = Store(path, keyed(tmp_path, old))
    running.add(entry("a"), ROOMY)
    Store(path, keyed(tmp_path, new, old)).all(1001.0)
    (tmp_path / "keys").write_text(old)
    for use in (lambda: running.add(entry("b"), ROOMY), lambda: running.all(1001.0)):
        with pytest.raises(OutboxLocked):
            use()
    (tmp_path / "keys").write_text(new)
    running.add(entry("b"), ROOMY)
    Store(path, keyed(tmp_path, newest := secrets.token_hex(32), new)).all(1001.0)
    (tmp_path / "keys").write_text(newest)
    assert [(each.receipt, each.state) for each in running.all(1001.0)] == [("a", "queued"), ("b", "queued")]


def test_a_sealed_file_of_the_first_version_opens_by_its_key_alone(path: Path, tmp_path: Path) -> None:
    key = secrets.token_hex(32)
    store = Store(path, keyed(tmp_path, key))
    store.add(entry("a", content='"Hello"'), ROOMY)
    labels, content = store._sealing.seal("{}", "a", "labels"), store._sealing.seal('"Hello"', "a", "content")
    store.close()
    path.unlink()
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, MIGRATIONS[:1])
    assert isinstance(labels, bytes)
    assert isinstance(content, bytes)
    connection.execute(
        "INSERT INTO entries (receipt, idempotency_key, state, priority, submitted_at, expires_at, labels, content, "
        "bytes) VALUES ('a', 'k', 'queued', 1, 1000.0, 9000.0, ?, ?, 7)",
        (b"\x01keysname" + labels, b"\x01keysname" + content),
    )
    connection.close()
    for wrong in (None, keyed(tmp_path, secrets.token_hex(32))):
        with pytest.raises(OutboxLocked):
            Store(path, wrong).all(1001.0)
    assert [each.content for each in Store(path, keyed(tmp_path, key)).all(1001.0)] == ['"Hello"']
