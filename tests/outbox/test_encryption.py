"""At rest: what the files show, which keys open them, and what becomes of what was there before."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import keyring
import pytest
from click.testing import CliRunner

from edgewise.policies.settings import EncryptionSettings
from edgewise.router import AsyncRouter, DeadLetter, Message, OutboxError, OutboxLocked, PolicyError
from edgewise.router.cli.main import edgewise
from edgewise.router.outbox import Ending, Receipt, Store
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .conftest import CONFIGURATION, ROOMY, START, RouterMaker, entry

SECRETS = ("Zebulon Quartz", "Ottilie", "Saffron", "Magenta")
NOW = 1000.0


@pytest.fixture
def system_keyring(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """What the system keyring holds, by service and user name."""
    passwords: dict[tuple[str, str], str] = {}
    monkeypatch.setattr(keyring, "get_password", lambda service, name: passwords.get((service, name)))
    return passwords


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "outbox.key"
    file.write_text(secrets.token_hex(32))
    return file


def by_file(file: Path) -> EncryptionSettings:
    return EncryptionSettings(key_file=str(file))  # type: ignore[arg-type]  # as the reader of a configuration gives it


def shown(folder: Path) -> set[str]:
    """What of the secrets stands in any file of the folder, the WAL and the shared memory included."""
    data = b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
    return {secret for secret in SECRETS if secret.encode() in data}


@pytest.mark.parametrize("source", ["file", "environment", "keyring"])
def test_nothing_of_prompt_options_and_answer_is_in_the_files(
    make_router: RouterMaker,
    tmp_path: Path,
    system_keyring: dict[tuple[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    key = secrets.token_hex(32)
    match source:
        case "file":
            (tmp_path / "outbox.key").write_text(key + "\n")
            written = "encryption: {key_file: outbox.key}"
        case "environment":
            monkeypatch.setenv("OUTBOX_KEY", key)
            written = "encryption: {key_env: OUTBOX_KEY}"
        case _:
            system_keyring["edgewise", "notes"] = key
            written = "encryption: {keyring: notes}"
    cloud = ScriptedBackend("cloud", Script(words=("Magenta",)))

    async def main() -> None:
        async with make_router(cloud, offline=written) as router:
            receipt = await router.submit(
                [Message.user("Zebulon Quartz")],
                stop=["Ottilie"],
                response_format={"type": "json_schema", "schema": {"title": "Saffron"}},
            )
            assert shown(tmp_path) == set()
        async with make_router(cloud, offline=written, replay=True) as router:
            answer = await router.result(receipt, timeout="1h")
            assert answer is not None
            assert answer.text == "Magenta"
            assert shown(tmp_path) == set()
        async with make_router(cloud, offline=written) as router:
            assert [each.answer and each.answer.text async for each in router.results()] == ["Magenta"]
        assert shown(tmp_path) == set()

    run_in_virtual_time(main())
    content = cloud.calls[0].content
    assert "Zebulon Quartz" in str(getattr(content, "messages")[0].text)  # noqa: B009  # one of three kinds of content
    assert getattr(content, "stop") == ("Ottilie",)  # noqa: B009


def test_without_encryption_the_same_would_be_seen(make_router: RouterMaker, tmp_path: Path) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            await router.submit("Zebulon Quartz", stop=["Ottilie"])
            assert shown(tmp_path) == {"Zebulon Quartz", "Ottilie"}

    run_in_virtual_time(main())


BAD_KEYS: dict[str, tuple[str | None, str]] = {
    "no file": (None, "No such file"),
    "an empty file": ("", "openssl rand -hex 32"),
    "a short one": ("abcd", "64 hexadecimal digits"),
    "no key at all": ("a letter to my aunt", "64 hexadecimal digits"),
    "no text": ("ÿ", "64 hexadecimal digits"),
    "another one": (secrets.token_hex(32), "another key"),
}


@pytest.mark.parametrize("how", BAD_KEYS)
def test_a_missing_or_wrong_key_is_a_typed_error_and_nothing_is_lost(path: Path, key_file: Path, how: str) -> None:
    store = Store(path, by_file(key_file))
    store.add(entry("a", content='"Zebulon Quartz"'), ROOMY)
    store.close()
    key = key_file.read_text()
    text, says = BAD_KEYS[how]
    key_file.unlink()
    if text is not None:
        key_file.write_text(text)
    uses: list[Callable[[], object]] = [
        lambda: store.find("a", NOW),
        lambda: store.all(NOW),
        lambda: store.add(entry("b"), ROOMY),
        lambda: store.drop("a", NOW),
        lambda: store.expire(NOW * 10),
    ]
    for use in uses:
        with pytest.raises(OutboxLocked, match=says) as caught:
            use()
        assert key not in str(caught.value)
        assert text is None or not text or text not in str(caught.value)
    key_file.write_text(key)
    found = store.all(NOW)
    assert [(each.receipt, each.content) for each in found] == [("a", '"Zebulon Quartz"')]
    assert not list(path.parent.glob("*.damaged-*"))


def test_encryption_switched_off_is_a_typed_error_and_nothing_is_lost(path: Path, key_file: Path) -> None:
    store = Store(path, by_file(key_file))
    store.add(entry("a"), ROOMY)
    store.close()
    with pytest.raises(OutboxLocked, match=r"policy\.offline\.encryption"):
        Store(path).all(NOW)
    assert [each.receipt for each in store.all(NOW)] == ["a"]


@pytest.mark.parametrize(
    ("library", "settings"),
    [("cryptography", {"key_env": "OUTBOX_KEY"}), ("keyring", {"keyring": "notes"})],
)
def test_a_missing_library_is_named_with_the_extra(
    path: Path, monkeypatch: pytest.MonkeyPatch, library: str, settings: dict[str, str]
) -> None:
    monkeypatch.setenv("OUTBOX_KEY", secrets.token_hex(32))
    for name in [each for each in sys.modules if each.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(OutboxLocked, match=rf"needs {library}.*edgewise\[encryption\]"):
        Store(path, EncryptionSettings(**settings)).add(entry("a"), ROOMY)  # type: ignore[arg-type]


def test_a_keyring_that_cannot_be_used_says_what_can(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(service: str, username: str) -> str:
        raise keyring.errors.KeyringLocked

    monkeypatch.setattr(keyring, "get_password", locked)
    with pytest.raises(OutboxLocked, match=r"KeyringLocked.*key_file"):
        Store(path, EncryptionSettings(keyring="notes")).add(entry("a"), ROOMY)


def test_what_was_there_before_is_encrypted_when_encryption_is_switched_on(path: Path, tmp_path: Path) -> None:
    plain = Store(path)
    for name in "abc":
        plain.add(entry(name, content=f'"Zebulon Quartz {name}"'), ROOMY)
    plain.finish(Receipt("b"), '"Magenta"', NOW)
    plain.bury("c", Ending.POISON, "it broke something", NOW)
    plain.close()
    assert shown(tmp_path) == {"Zebulon Quartz", "Magenta"}
    key_file = tmp_path / "outbox.key"
    key_file.write_text(secrets.token_hex(32))
    store = Store(path, by_file(key_file))
    found = store.all(NOW)
    assert shown(tmp_path) == set()
    assert [(each.content, each.answer) for each in found] == [
        ('"Zebulon Quartz a"', None),
        (None, '"Magenta"'),
        ('"Zebulon Quartz c"', None),
    ]


def test_a_new_key_before_the_old_one_seals_everything_anew(path: Path, key_file: Path) -> None:
    store = Store(path, by_file(key_file))
    for name in "ab":
        store.add(entry(name, content=f'"{name}"'), ROOMY)
    store.finish(Receipt("b"), '"answer"', NOW)
    store.close()
    old, new = key_file.read_text(), secrets.token_hex(32)
    key_file.write_text(f"{new}\n{old}\n")
    assert [each.receipt for each in store.all(NOW)] == ["a", "b"]
    store.close()
    key_file.write_text(new)
    assert [(each.content, each.answer) for each in store.all(NOW)] == [('"a"', None), (None, '"answer"')]
    store.close()
    key_file.write_text(old)
    with pytest.raises(OutboxLocked):
        store.all(NOW)


def test_content_moved_to_another_entry_does_not_open_and_holds_up_nobody(
    make_router: RouterMaker, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "outbox.key").write_text(secrets.token_hex(32))
    written = "encryption: {key_file: outbox.key}"
    cloud = ScriptedBackend("cloud")

    async def main() -> None:
        async with make_router(cloud, offline=written) as router:
            private = await router.submit("Zebulon Quartz", data_class="personal")
            public = await router.submit("the weather", data_class="public")
        _swap(path, "content", "labels", private, public)
        async with make_router(cloud, offline=written, replay=True) as router:
            fine = await router.submit("Hello")
            answer = await router.result(fine, timeout="1h")
            assert answer is not None
            for receipt in (private, public):
                with pytest.raises(DeadLetter, match="cannot be read"):
                    await router.result(receipt)
            other = await router.submit("Hello again")
            assert await router.result(other, timeout="1h") is not None
        _swap(path, "answer", "answer", fine, other)
        async with make_router(cloud, offline=written) as router:
            with pytest.raises(DeadLetter, match="cannot be read") as caught:
                await router.result(fine)
            assert caught.value.reason == "unreadable"
            assert len([each async for each in router.results()]) == 4

    run_in_virtual_time(main())
    assert len(cloud.calls) == 2


def _swap(path: Path, column: str, other: str, one: str, two: str) -> None:
    with sqlite3.connect(path) as connection:
        values = dict(connection.execute(f"SELECT receipt, {column} FROM entries"))
        connection.execute(f"UPDATE entries SET {column} = ? WHERE receipt = ?", (values[two], one))
        connection.execute(f"UPDATE entries SET {other} = ? WHERE receipt = ?", (values[one], two))
    connection.close()


def test_a_damaged_answer_holds_up_no_other_result(make_router: RouterMaker, path: Path) -> None:
    async def main() -> None:
        async with make_router(ScriptedBackend("cloud")) as router:
            for name in "ab":
                Store(path).add(entry(name, at=START.timestamp()), ROOMY)
                Store(path).finish(Receipt(name), '{"text": 7}', START.timestamp())
            results = [each async for each in router.results()]
        assert [each.error and each.error.reason for each in results] == ["unreadable", "unreadable"]

    run_in_virtual_time(main())


def test_the_command_opens_it_by_the_same_key(
    tmp_path: Path, make_router: RouterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = "encryption: {key_env: OUTBOX_KEY}"
    (tmp_path / "edgewise.yaml").write_text(CONFIGURATION.format(personal="[EU]", offline=written))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTBOX_KEY", secrets.token_hex(32))

    async def main() -> str:
        async with make_router(ScriptedBackend("cloud"), offline=written) as router:
            return await router.submit("Zebulon Quartz", ttl="10000d")

    receipt = run_in_virtual_time(main())
    exported = CliRunner().invoke(edgewise, ["queue", "export", "--content"])
    assert json.loads(exported.output)["content"]["messages"][0]["text"] == "Zebulon Quartz"
    monkeypatch.delenv("OUTBOX_KEY")
    locked = CliRunner().invoke(edgewise, ["queue", "show", receipt])
    assert (locked.exit_code, "OUTBOX_KEY" in locked.stderr) == (1, True)


@pytest.mark.parametrize("written", ["{}", "{key_file: a, key_env: B}", "{key_env: ''}"])
def test_a_key_stands_in_one_place(make_router: RouterMaker, written: str) -> None:
    with pytest.raises(PolicyError, match="the key stands in one place"):
        make_router(ScriptedBackend("cloud"), offline=f"encryption: {written}")


def test_a_locked_outbox_refuses_submissions_and_is_told_by_the_replay(
    make_router: RouterMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        router: AsyncRouter = make_router(
            ScriptedBackend("cloud"), offline="encryption: {key_env: NOT_SET}", replay=True
        )
        async with router:
            with pytest.raises(OutboxError, match="NOT_SET holds no key"):
                await router.submit("Hello")
            await asyncio.sleep(60)

    run_in_virtual_time(main())
    assert caplog.text.count("the queue is not replayed") == 1
