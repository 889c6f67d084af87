"""What was learned outlives the process: as old as it is, whole or not at all, and never in a request's way."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import random
import signal
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgewise.core.failure import AttemptError, FailureKind
from edgewise.policies.facts import DeviceFacts
from edgewise.policies.plan import Plan
from edgewise.router import AsyncRouter, ConfigurationError, EdgewiseError
from edgewise.router.config import loads
from edgewise.router.snapshot import JsonValue
from edgewise.router.state_file import SAVE_EVERY, StateFile
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

NINE = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SECRET = "the patient's finding"
TEXT = """\
version: 1
backends:
  cloud: {{kind: grpc, target: '{target}', location: {{process_in: [NL], store_in: [], operators: [NL]}}}}
policy:
  data_classes: {{public: {{process_in: [any]}}}}
  default_data_class: public
  defaults: {{latency_budget: 60s}}
state_file: kept/state.json
"""
SLOW = Script(words=("ok",), first_after=2.0)
BROKEN = Script(failure=AttemptError(FailureKind.UNREACHABLE, "it is away"))


class Device:
    """Runs one process after another over the same file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "kept" / "state.json"

    def run(
        self,
        work: Callable[[AsyncRouter], Awaitable[Plan | None]],
        script: Script = SLOW,
        *,
        at: datetime = NINE,
        target: str = "127.0.0.1:1",
    ) -> Plan | None:
        """A process that begins at a time of the wall clock, does its work, and closes its router."""

        async def main() -> Plan | None:
            loop = asyncio.get_running_loop()
            router = AsyncRouter(
                loads(TEXT.format(target=target), self.folder),
                backends={"cloud": ScriptedBackend("cloud", script)},
                random_source=random.Random(7),
                wall_clock=lambda: at + timedelta(seconds=loop.time()),
                sample=DeviceFacts,
            )
            async with router:
                return await work(router)

        return run_in_virtual_time(main())

    def plan(self, *, at: datetime, target: str = "127.0.0.1:1") -> Plan:
        """What a process that begins then would do first."""
        plan = self.run(look, at=at, target=target)
        assert plan is not None
        return plan

    def aside(self) -> list[str]:
        """The files that were set aside."""
        return [each.name for each in self.path.parent.glob("*.damaged-*")]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def look(router: AsyncRouter) -> Plan:
    return await router.plan("Hello")


async def rest(router: AsyncRouter) -> None:
    """Do nothing."""


async def use(router: AsyncRouter) -> None:
    for _ in range(20):
        await router.generate(SECRET)


async def fail(router: AsyncRouter) -> None:
    for _ in range(3):
        with pytest.raises(EdgewiseError):
            await router.generate(SECRET, latency_budget="100ms")


@pytest.mark.parametrize("pause", [0.0, 3.0, 30.0, 600.0])
def test_estimates_are_after_a_restart_what_they_would_be_without_one(device: Device, pause: float) -> None:
    async def use_and_look(router: AsyncRouter) -> Plan:
        await use(router)
        await asyncio.sleep(pause)
        return await look(router)

    without = device.run(use_and_look, SLOW)
    assert without is not None
    device.path.unlink()
    device.run(use, SLOW)  # 40 s of it
    prediction = device.plan(at=NINE + timedelta(seconds=40.0 + pause)).steps[0].prediction
    assert prediction.known == without.steps[0].prediction.known == (pause < 100.0)
    assert prediction.total.median() == pytest.approx(without.steps[0].prediction.total.median(), rel=0.01)


def test_an_open_breaker_is_open_after_a_restart_and_not_an_hour_later(device: Device) -> None:
    device.run(fail, BROKEN)
    soon = device.plan(at=NINE + timedelta(seconds=0.5))
    assert not soon.steps
    assert "failed 3 times in a row" in soon.refusals[0].sentence
    assert device.plan(at=NINE + timedelta(hours=1)).steps


@pytest.mark.parametrize("back", [timedelta(minutes=5), timedelta(days=20_000)])
def test_a_clock_that_was_set_back_makes_it_as_old_as_can_be(device: Device, back: timedelta) -> None:
    device.run(use, SLOW)
    plan = device.plan(at=NINE - back)
    assert not plan.steps[0].prediction.known
    device.run(use, SLOW, at=NINE - back)
    assert device.plan(at=NINE - back + timedelta(seconds=45)).steps[0].prediction.known
    assert not device.aside()


def test_another_backend_of_the_same_name_begins_anew(device: Device) -> None:
    device.run(use, SLOW)
    soon = NINE + timedelta(seconds=45)
    assert not device.plan(at=soon, target="127.0.0.1:2").steps[0].prediction.known


def test_it_holds_no_content_and_is_for_its_owner_alone(device: Device) -> None:
    device.run(use, SLOW)
    device.run(fail, BROKEN)
    stored = device.path.read_text("utf-8")
    assert "finding" not in stored
    assert set(json.loads(stored)) == {"edgewise_state", "saved_at", "clock", "parts"}
    assert stat.S_IMODE(device.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(device.path.parent.stat().st_mode) == 0o700


def whole(device: Device) -> dict[str, Any]:
    device.run(use, SLOW)
    stored: dict[str, Any] = json.loads(device.path.read_text("utf-8"))
    return stored


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "empty": lambda stored: "",
    "torn": lambda stored: json.dumps(stored)[:300],
    "not JSON": lambda stored: "a letter to my aunt",
    "not text": lambda stored: "\udcff\udcfe",
    "deep": lambda stored: "[" * 100_000,
    "a list": lambda stored: [stored],
    "of a newer version": lambda stored: {**stored, "edgewise_state": 2},
    "without a time": lambda stored: {**stored, "saved_at": "yesterday"},
    "not a number": lambda stored: {**stored, "saved_at": float("nan")},
    "larger than any float": lambda stored: {**stored, "clock": 10**400},
    "a backend's number larger than any float": lambda stored: _with(
        stored, ["estimates", "generate", "aged_at"], -(10**400)
    ),
    "without parts": lambda stored: {**stored, "parts": None},
    "a part that is none": lambda stored: {**stored, "parts": {"backends": 7}},
    "a link that is none": lambda stored: {**stored, "parts": {"link": {"damping": {"losses": [None]}}}},
    "a backend that is none": lambda stored: {**stored, "parts": {"backends": {"cloud": []}}},
    "a breaker that is none": lambda stored: _with(stored, ["breaker"], {"failures": "many"}),
    "a breaker with words of its own": lambda stored: _with(stored, ["breaker", "last_failure"], SECRET),
    "an endless sum": lambda stored: _with(stored, ["estimates", "generate", "first", "sum"], 1e308),
    "a negative weight": lambda stored: _with(stored, ["estimates", "generate", "first", "weight"], -1.0),
    "a missing estimate": lambda stored: _with(stored, ["estimates", "embed"], None),
}


def _with(stored: dict[str, Any], place: list[str], value: object) -> dict[str, Any]:
    inner = stored["parts"]["backends"]["cloud"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return stored


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_set_aside_told_and_never_fatal(
    device: Device, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = DAMAGES[how](whole(device))
    text = damaged if isinstance(damaged, str) else json.dumps(damaged)
    raw = text.encode("utf-8", "surrogateescape")
    device.path.write_bytes(raw)
    with caplog.at_level(logging.INFO, "edgewise"):
        device.run(use, SLOW)
    [aside] = device.aside()
    assert (device.path.parent / aside).read_bytes() == raw
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert aside in line.getMessage()
    assert SECRET not in caplog.text
    assert device.plan(at=NINE + timedelta(seconds=45)).steps[0].prediction.known, "a new one began"


def test_what_is_whole_in_a_damaged_file_is_kept_by_a_router_that_learns_nothing_more(device: Device) -> None:
    stored = whole(device)
    stored["parts"]["link"] = None
    device.path.write_text(json.dumps(stored), "utf-8")
    soon = NINE + timedelta(seconds=45)
    device.run(rest, at=soon)
    assert device.aside()
    assert device.plan(at=soon).steps[0].prediction.known, "the file was set aside, and all that it said with it"


def test_a_file_that_cannot_be_read_or_written_fails_nothing_and_is_told_once(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.path.mkdir(parents=True)
    (device.path / "in the way").touch()

    async def work(router: AsyncRouter) -> None:
        for _ in range(5):
            await router.generate("Hello")
            await asyncio.sleep(SAVE_EVERY)

    device.folder = device.folder / "elsewhere"
    device.folder.mkdir()
    (device.folder / "kept").write_text("a file where its folder should be")
    device.run(work)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "state.json" in caplog.text


def test_a_killed_process_has_written_what_it_knew_half_a_minute_before(device: Device) -> None:
    written: list[bool] = []

    async def work(router: AsyncRouter) -> None:
        await use(router)
        await asyncio.sleep(SAVE_EVERY)
        written.append(device.path.exists())
        device.path.unlink()
        await asyncio.sleep(10 * SAVE_EVERY)
        written.append(device.path.exists())

    device.run(work)
    assert written == [True, False], "it is written while the router runs, and not where nothing has changed"


class Counting:
    """Knows one number."""

    def __init__(self, known: int) -> None:
        self.known = known

    def snapshot(self) -> JsonValue:
        """A large value, so that writing it takes many pages."""
        return {"known": self.known, "filler": [self.known] * 4_000}

    def restore(self, value: JsonValue, shift: float) -> None:
        """Nothing is taken back."""


def write_for_ever(path: Path, seed: int) -> None:
    """Write again and again, until killed."""

    async def work() -> None:
        known = seed
        while True:
            part = Counting(known)
            file = StateFile(path, lambda: datetime.now(UTC))
            file.start({"counting": part}, {})
            part.known = known = known + 1
            await file.close()

    asyncio.run(work())


def test_processes_that_write_the_same_file_and_are_killed_never_tear_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    spawn = multiprocessing.get_context("spawn")
    dice = random.Random(5)
    writers = [spawn.Process(target=write_for_ever, args=(path, seed)) for seed in (0, 1_000_000)]
    for writer in writers:
        writer.start()
    try:
        while len(writers) > 0:
            seen = {read_whole(path) for _ in range(dice.randrange(20, 60))} - {None}
            if len(seen) > 2:
                victim = writers.pop()
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
    finally:
        for writer in writers:
            writer.kill()
    read_whole(path)
    assert {each.name for each in tmp_path.iterdir()} <= {"state.json", "state.json-lock", "state.json.new"}


def read_whole(path: Path) -> int | None:
    """What is in the file, which is whole; ``None`` before there is one."""
    if not path.exists():
        return None
    counting = json.loads(path.read_text("utf-8"))["parts"]["counting"]
    assert set(counting["filler"]) == {counting["known"]}
    return int(counting["known"])


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("state_file: .", "this is a folder"),
        ("state_file: edgewise.yaml", "the configuration is kept in this file"),
        ("state_file: kept/../outbox.db\npolicy: {offline: {outbox: outbox.db}}", "the outbox is kept in this file"),
        ("state_file: log\ndecision_log: {path: log}", "the decision log is kept in this file"),
        ("state_file: {path: x}", "here should be a single value"),
    ],
)
def test_a_file_that_is_something_else_is_a_mistake(tmp_path: Path, written: str, what: str) -> None:
    text = "version: 1\nbackends: {cloud: {kind: grpc, target: '127.0.0.1:1'}}\n" + written
    with pytest.raises(ConfigurationError, match=what):
        loads(text, tmp_path, file=str(tmp_path / "edgewise.yaml"))
