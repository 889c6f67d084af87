"""Files that are damaged, torn, of another kind or of another version."""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from edgewise.router import OutboxError
from edgewise.router.outbox import Receipt, State, Store
from edgewise.router.outbox.schema import MIGRATIONS, migrate

from .conftest import ROOMY, entry

NOW = 1000.0


def damage(path: Path) -> None:
    """Overwrite the middle of the file, and leave no log that could mend it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :] = random.Random(1).randbytes(len(data) - len(data) // 4)
    path.write_bytes(bytes(data))
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


@pytest.mark.parametrize("how", ["no database at all", "a damaged one"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begins(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    if how == "a damaged one":
        for number in range(50):
            store.add(entry(str(number), content="x" * 500), ROOMY)
        store.close()
        damage(path)
    else:
        path.write_bytes(b"this is a letter to my aunt\n" * 100)
    before = path.read_bytes()
    with caplog.at_level(logging.ERROR, "edgewise"):
        store.add(entry("new"), ROOMY)
    aside = [file for file in path.parent.iterdir() if ".damaged-" in file.name]
    assert [file.read_bytes() for file in aside] == [before]
    assert stat.S_IMODE(aside[0].stat().st_mode) == 0o600
    assert aside[0].name in caplog.text
    assert [each.receipt for each in store.all(NOW)] == ["new"]


def test_damage_found_while_at_work_is_a_typed_error_and_the_next_use_goes_on(store: Store, path: Path) -> None:
    for number in range(50):
        store.add(entry(str(number), content="x" * 500), ROOMY)
    with store.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA cache_size = 0")
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    with path.open("r+b") as file:
        file.write(data)
    with pytest.raises(OutboxError, match="damaged"):
        store.all(NOW)
    assert store.add(entry("new"), ROOMY) == "new"
    assert [each.receipt for each in store.all(NOW)] == ["new"]


def test_a_damaged_file_that_another_process_uses_stays_where_it_is(store: Store, path: Path) -> None:
    store.add(entry("a"), ROOMY)
    with store.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    second = Store(path)
    path.write_bytes(b"garbage" * 2000)
    with pytest.raises(OutboxError, match="another process has it open"):
        second.add(entry("b"), ROOMY)
    assert not [file for file in path.parent.iterdir() if ".damaged-" in file.name]


def test_a_log_torn_anywhere_loses_no_more_than_its_end(path: Path, tmp_path: Path) -> None:
    store = Store(path)
    store.add(entry("0"), ROOMY)
    store.close()
    sizes: list[int] = []
    log = path.with_name(path.name + "-wal")
    for number in range(1, 8):
        store.add(entry(str(number), content="x" * 3000), ROOMY)
        sizes.append(log.stat().st_size)
    dice = random.Random(3)
    cuts = sorted({*sizes, *(size - 1 for size in sizes), *(dice.randrange(sizes[-1]) for _ in range(25))})
    for cut in cuts:
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        shutil.copy(path, folder / path.name)
        (folder / log.name).write_bytes(log.read_bytes()[:cut])
        copy = Store(folder / path.name)
        found = [each.receipt for each in copy.all(NOW)]
        whole = sum(size <= cut for size in sizes)
        assert found == [str(number) for number in range(whole + 1)]
        assert copy.add(entry("new"), ROOMY) == "new"
        copy.close()


def test_another_application_s_database_is_left_alone(store: Store, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    with pytest.raises(OutboxError, match="another application"):
        store.add(entry("a"), ROOMY)
    with sqlite3.connect(path) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")] == ["customers"]
    connection.close()


def test_a_newer_version_s_file_is_left_alone(store: Store, path: Path) -> None:
    store.add(entry("a"), ROOMY)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OutboxError, match="newer edgewise"):
        store.add(entry("b"), ROOMY)
    assert path.exists()
    assert not [file for file in path.parent.iterdir() if ".damaged-" in file.name]


def test_an_older_file_is_migrated_with_all_that_is_in_it(store: Store, path: Path) -> None:
    store.add(entry("a"), ROOMY)
    store.close()
    newer = (*MIGRATIONS, ("ALTER TABLE entries ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",))
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, newer)
    migrate(connection, newer)
    assert connection.execute("SELECT receipt, colour FROM entries").fetchall() == [("a", "red")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
    connection.close()


def test_a_migration_that_fails_changes_nothing(store: Store, path: Path) -> None:
    store.add(entry("a"), ROOMY)
    store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, (*MIGRATIONS, ("ALTER TABLE entries ADD COLUMN colour TEXT", "NO SQL AT ALL")))
    connection.close()
    found = store.find("a", NOW)
    assert found is not None
    assert found.state is State.QUEUED


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(OutboxError, match="cannot be"):
        Store(tmp_path / "file" / "outbox.db").add(entry("a"), ROOMY)


def test_a_damaged_row_s_error_does_not_quote_it(store: Store) -> None:
    store.add(entry("a", content="Zebulon Quartz"), ROOMY)
    with store.database.reading() as connection:
        connection.execute("DROP TABLE leases")
        connection.execute("DROP TABLE entries")
    with pytest.raises(OutboxError) as caught:
        store.find(Receipt("Zebulon"), NOW)
    assert "Zebulon" not in str(caught.value)


def test_a_file_that_is_removed_or_replaced_while_it_is_open_takes_no_receipt_with_it(
    store: Store, path: Path, tmp_path: Path
) -> None:
    store.add(entry("a"), ROOMY)
    backup = Store(tmp_path / "backup.db")
    backup.add(entry("b"), ROOMY)
    backup.close()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    with pytest.raises(OutboxError, match="there is no outbox"):
        store.all(NOW)
    store.add(entry("c"), ROOMY)
    assert [each.receipt for each in Store(path).all(NOW)] == ["c"]
    (tmp_path / "backup.db").replace(path)
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
    store.add(entry("d"), ROOMY)
    assert [each.receipt for each in Store(path).all(NOW)] == ["b", "d"]
