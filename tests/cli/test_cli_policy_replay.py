"""`edgewise policy simulate` and `diff` over the log of a router that really ran."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgewise.core.errors import RequestError
from edgewise.router import AsyncRouter
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from .. import cloud_and_gateway
from .conftest import COMMAND, Invoke

PRICED = cloud_and_gateway.TEXT.replace("quality: 0.9", "quality: 0.9\n    price: {input: 1.0, output: 100.0}")
TEXT = (
    PRICED.replace("  defaults:", "    staff: {process_in: [EU], operators: [EU]}\n  defaults:")
    + "  default_data_class: personal\ndecision_log: {path: decisions.jsonl}\n"
)
STRICT = cloud_and_gateway.strict(TEXT)
LAX = TEXT.replace("staff: {process_in: [EU], operators: [EU]}", "staff: {process_in: [EU], operators: [EU, US]}")
THIRD = TEXT.replace(
    "policy:",
    "  near: {kind: grpc, target: '127.0.0.1:50053', quality: 0.99,"
    " location: {process_in: [DE], store_in: [], operators: [DE]}}\npolicy:",
)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The log of seven requests: five personal, two of staff; the cloud takes a second, the gateway four."""
    (tmp_path / "edgewise.yaml").write_text(TEXT, encoding="utf-8")
    backends = {
        "cloud": ScriptedBackend("cloud", Script(first_after=1.0)),
        "gateway": ScriptedBackend("gateway", Script(first_after=4.0)),
    }

    async def main() -> None:
        async with AsyncRouter.from_yaml(tmp_path / "edgewise.yaml", backends=dict(backends)) as router:
            for number in range(7):
                with suppress(RequestError):
                    await router.generate("a text", data_class="staff" if number % 3 == 2 else "personal")

    run_in_virtual_time(main())
    return tmp_path / "decisions.jsonl"


def data(invoke: Invoke, *arguments: str) -> Any:
    return json.loads(invoke("policy", *arguments, "--format", "json").stdout)


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return name


def test_the_same_policy_decides_as_recorded(invoke: Invoke, recorded: Path) -> None:
    told = data(invoke, "simulate", str(recorded))
    assert (told["decisions"], told["unreadable"], told["moved"]) == (7, 0, [])
    assert told["recorded"]["first"] == told["simulated"]["first"] == {"cloud": 5, "gateway": 2}
    for key in ("predicted", "in_time"):
        assert told["recorded"][key] == pytest.approx(told["simulated"][key])
    assert told["recorded"]["took"]["p50"] == pytest.approx(1.0, abs=0.1)
    assert told["recorded"]["took"]["p95"] == pytest.approx(4.0, abs=0.1)


def test_a_stricter_policy_moves_requests_and_says_why(invoke: Invoke, recorded: Path, tmp_path: Path) -> None:
    strict = write(tmp_path, "strict.yaml", STRICT)
    told = data(invoke, "simulate", "-c", strict, str(recorded))
    assert told["simulated"]["first"] == {"gateway": 7}
    (move,) = told["moved"]
    assert (move["from"], move["to"], move["count"]) == ("cloud", "gateway", 5)
    assert told["simulated"]["cost"] == 0.0
    shown = invoke("policy", "simulate", "-c", strict, str(recorded))
    assert shown.exit_code == 0
    assert "7 decisions, " in shown.stdout
    assert f"5 decisions: cloud -> gateway, such as\n  {move['example']}: gateway: " in shown.stdout
    assert "recorded answers really took 1 s, and 95 % of them at most 4 s" in shown.stdout


def test_what_it_would_have_cost_follows_the_tokens_that_came(invoke: Invoke, recorded: Path, tmp_path: Path) -> None:
    dear = write(
        tmp_path, "dear.yaml", LAX.replace("quality: 0.6", "quality: 0.6\n    price: {input: 0, output: 1000}")
    )
    lines = [json.loads(each) for each in recorded.read_bytes().splitlines()]
    for line in lines:
        for attempt in line["attempts"]:
            attempt |= {"prompt_tokens": 1000, "output_tokens": 50, "cost": 0.25}
    recorded.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    told = data(invoke, "simulate", "-c", dear, str(recorded))
    assert told["recorded"]["cost"] == pytest.approx(sum(len(line["attempts"]) for line in lines) * 0.25)
    assert told["simulated"]["first"] == {"cloud": 7}
    assert told["simulated"]["cost"] == pytest.approx(7 * (1000 * 1.0 + 50 * 100.0) / 1e6)


def test_a_backend_that_the_log_does_not_know_is_left_out_until_its_time_is_assumed(
    invoke: Invoke, recorded: Path, tmp_path: Path
) -> None:
    third = write(tmp_path, "third.yaml", THIRD)
    told = data(invoke, "simulate", "-c", third, str(recorded))
    assert (told["not_in_the_log"], told["moved"]) == (["near"], [])
    assert (
        "`--assume near=1s` says how long it takes" in invoke("policy", "simulate", "-c", third, str(recorded)).stdout
    )
    told = data(invoke, "simulate", "-c", third, str(recorded), "--assume", "near=300ms")
    assert (told["not_in_the_log"], told["simulated"]["first"]) == ([], {"near": 7})
    assert told["simulated"]["predicted"]["p50"] == pytest.approx(0.3)
    for wrong in ("near", "near=fast", "nearby=1s", "near=0s"):
        assert invoke("policy", "simulate", "-c", third, str(recorded), "--assume", wrong).exit_code == 2


def test_what_cannot_be_read_or_judged_is_counted_and_told(invoke: Invoke, recorded: Path, tmp_path: Path) -> None:
    whole = recorded.read_bytes()
    recorded.write_bytes(b"{\n" + whole + b'\n{"schema":9}\n' + b"x" * 3_000_000 + b"\n" + whole[:500])
    renamed = write(tmp_path, "renamed.yaml", TEXT.replace("    staff:", "    people:"))
    told = data(invoke, "simulate", "-c", renamed, str(recorded))
    assert (told["decisions"], told["unreadable"]) == (5, 4)
    ((why, count),) = told["unjudged"].items()
    assert ("no data class 'staff'" in why, count) == (True, 2)
    shown = invoke("policy", "simulate", "-c", renamed, str(recorded)).stdout
    assert "left out: 4 lines that could not be read" in shown
    assert "left out: 2 decisions: there is no data class 'staff'" in shown


def test_a_log_that_is_not_there_is_a_mistake_with_its_mend(invoke: Invoke, recorded: Path) -> None:
    result = invoke("policy", "simulate", "nowhere.jsonl")
    assert result.exit_code == 1
    assert "nowhere.jsonl cannot be read: No such file" in result.stderr
    assert invoke("policy", "simulate").exit_code == 2


def test_several_logs_are_one(invoke: Invoke, recorded: Path) -> None:
    assert data(invoke, "simulate", str(recorded), str(recorded))["decisions"] == 14


def test_diff_tells_what_a_change_opens_for_recorded_requests(invoke: Invoke, recorded: Path, tmp_path: Path) -> None:
    lax = write(tmp_path, "lax.yaml", LAX)
    told = data(invoke, "diff", "edgewise.yaml", lax, str(recorded))["recorded"]
    assert (told["decisions"], list(told["opened"]), told["closed"]) == (7, ["cloud"], {})
    assert told["opened"]["cloud"]["count"] == 2
    assert "before: class 'staff' permits operators [EU]" in told["opened"]["cloud"]["why"]
    assert (told["old"]["first"], told["new"]["first"]) == ({"cloud": 5, "gateway": 2}, {"cloud": 7})
    shown = invoke("policy", "diff", "edgewise.yaml", lax, str(recorded))
    assert shown.exit_code == 1
    assert "2 recorded requests may now go to cloud, such as" in shown.stdout
    assert "2 decisions: gateway -> cloud" in shown.stdout


def test_diff_tells_what_else_changes(invoke: Invoke, recorded: Path, tmp_path: Path) -> None:
    other = write(tmp_path, "other.yaml", STRICT.replace("latency_budget: 20s", "latency_budget: 30s"))
    told = data(invoke, "diff", "edgewise.yaml", other, str(recorded))["recorded"]
    assert (told["opened"], told["closed"]["cloud"]["count"], told["handled"]) == ({}, 5, 7)
    assert data(invoke, "diff", "edgewise.yaml", other)["recorded"] is None


def test_a_terminal_sees_how_far_it_is(recorded: Path, tmp_path: Path) -> None:
    """Through a pseudo-terminal, because a bar is drawn there alone."""
    recorded.write_bytes(recorded.read_bytes() * 400)
    ours, theirs = pty.openpty()
    command = [*COMMAND, "policy", "simulate", str(recorded)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        drawn = b""
        with suppress(OSError):
            while read := os.read(ours, 65536):
                drawn += read
        assert process.stdout is not None
        told = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert b"decisions.jsonl" in drawn
    assert "━".encode() in drawn
    assert b"2,800 decisions" in told
