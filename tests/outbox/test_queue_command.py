"""`edgewise queue`, as a person or a script uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgewise.router import Router
from edgewise.router.cli.main import edgewise
from edgewise.router.config import load
from edgewise.router.outbox import Ending, Store
from edgewise.testing import ScriptedBackend

from .conftest import CONFIGURATION

SECRET = "Patient Zebulon Quartz"
Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs the command in a folder that has a configuration."""
    text = CONFIGURATION.format(personal="[EU]", offline="queue_ttl: 24h")
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(edgewise, ["queue", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def receipts(invoke: Invoke, tmp_path: Path) -> list[str]:
    """Three requests: one answered, two that wait."""
    with Router(load(tmp_path / "edgewise.yaml"), backends={"cloud": ScriptedBackend("cloud")}) as router:
        answered = router.submit(SECRET, data_class="personal")
        router.flush()
        assert [result.receipt for result in router.results()] == [answered]
        return [answered, router.submit(SECRET, priority="high", order_key="ward"), router.submit("Hello")]


def listed(invoke: Invoke, *more: str) -> list[dict[str, Any]]:
    result = invoke("list", "--format", "json", *more)
    assert result.exit_code == 0
    found: list[dict[str, Any]] = json.loads(result.output)
    return found


def test_a_list_shows_states_and_no_content(invoke: Invoke, receipts: list[str]) -> None:
    assert [(each["receipt"], each["state"]) for each in listed(invoke)] == list(
        zip(receipts, ("answered", "queued", "queued"), strict=True)
    )
    assert [each["receipt"] for each in listed(invoke, "--state", "queued")] == receipts[1:]
    text = invoke("list").output
    assert all(receipt[:8] in text for receipt in receipts)
    assert SECRET not in text
    assert SECRET not in json.dumps(listed(invoke))


@pytest.mark.parametrize("output", ["text", "json"])
def test_content_is_shown_when_asked_for(invoke: Invoke, receipts: list[str], output: str) -> None:
    plain = invoke("show", receipts[1][:10], "--format", output)
    assert plain.exit_code == 0
    assert "ward" in plain.output
    assert SECRET not in plain.output
    assert SECRET in invoke("show", receipts[1], "--content", "--format", output).output
    assert "a scripted answer" in invoke("show", receipts[0], "--content", "--format", output).output


def test_an_export_is_lines_of_json(invoke: Invoke, receipts: list[str]) -> None:
    for more, shown in (((), False), (("--content",), True)):
        lines = [json.loads(line) for line in invoke("export", *more).output.splitlines()]
        assert [line["receipt"] for line in lines] == receipts
        assert (SECRET in json.dumps(lines)) == shown


def test_a_time_to_live_without_end_can_be_shown(invoke: Invoke, receipts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_text(file.read_text("utf-8").replace("queue_ttl: 24h", "queue_ttl: 999999999d"))
    store = Store(tmp_path / "outbox.db")
    store.bury(receipts[2], Ending.POISON, "it broke something", 0.0)
    store.close()
    assert invoke("retry", receipts[2]).exit_code == 0
    assert json.loads(invoke("show", receipts[2], "--format", "json").output)["expires_at"].startswith("999")


def test_a_drop_erases(invoke: Invoke, receipts: list[str], tmp_path: Path) -> None:
    assert invoke("drop", *receipts[:2]).output == "2 dropped\n"
    assert [each["ending"] for each in listed(invoke)] == ["dropped", "dropped", None]
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.glob("outbox.db*"))


def test_a_retry_queues_dead_letters_again_where_their_content_is_there(
    invoke: Invoke, receipts: list[str], tmp_path: Path
) -> None:
    store = Store(tmp_path / "outbox.db")
    now = store.all(0.0)[0].submitted_at
    store.bury(receipts[1], Ending.POISON, "it broke something", now)
    store.bury(receipts[2], Ending.CANCELLED, "it was cancelled", now)
    store.close()
    refused = invoke("retry", receipts[2])
    assert (refused.exit_code, "erased" in refused.stderr) == (1, True)
    assert invoke("retry", "--all").output == "1 queued again\n"
    assert [each["state"] for each in listed(invoke)] == ["answered", "queued", "dead"]


def test_a_flush_says_what_came_of_it(invoke: Invoke, receipts: list[str]) -> None:
    flushed = invoke("flush", "--format", "json")  # nobody listens at the cloud's address
    assert flushed.exit_code == 0
    assert json.loads(flushed.stdout) == {"answered": 0, "waiting": 2, "dead": 0}
    assert {each["state"] for each in listed(invoke)} == {"answered", "queued"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("show", "zz"), 1), (("drop",), 2), (("retry",), 2), (("retry", "--all", "aa"), 2), (("show", ""), 1)],
)
def test_a_mistake_is_said(invoke: Invoke, receipts: list[str], arguments: tuple[str, ...], code: int) -> None:
    assert invoke(*arguments).exit_code == code


@pytest.mark.parametrize("arguments", ["list", "show aa", "flush", "retry --all", "retry aa", "drop aa", "export"])
def test_where_no_outbox_is_none_is_made(invoke: Invoke, tmp_path: Path, arguments: str) -> None:
    file = tmp_path / "edgewise.yaml"
    file.write_text(file.read_text("utf-8").replace("outbox.db", "mistyped/outbox.db"))
    result = invoke(*arguments.split())
    assert result.exit_code == 1
    assert f"there is no outbox {tmp_path}/mistyped/outbox.db" in result.stderr
    assert "policy.offline.outbox" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["edgewise.yaml"]


def test_for_an_application_no_outbox_is_an_empty_one(invoke: Invoke, tmp_path: Path) -> None:
    configuration = load(tmp_path / "edgewise.yaml")
    with Router(configuration, backends={"cloud": ScriptedBackend("cloud")}, replay=True) as router:
        assert router.flush().total == 0
        assert list(router.results()) == []
        assert not router.cancel("a receipt")
        router.on_result(lambda result: None)
        assert [each.name for each in tmp_path.iterdir()] == ["edgewise.yaml"]
        assert router.result(router.submit("Hello"), timeout="20s") is not None


def test_without_an_outbox_it_says_what_to_write(invoke: Invoke, tmp_path: Path) -> None:
    text = (tmp_path / "edgewise.yaml").read_text().replace("outbox: outbox.db, ", "")
    (tmp_path / "edgewise.yaml").write_text(text)
    result = invoke("list")
    assert result.exit_code == 1
    assert "policy.offline.outbox" in result.stderr
