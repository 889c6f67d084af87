"""The decision log: a line for each request, no content, and no request that it delays or fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgewise.core.decision import Decision
from edgewise.core.errors import ConfigurationError, NoBackendPermitted, Offline, RequestError
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.core.request import Labels, Task
from edgewise.core.settings import ByteSize, FilePath
from edgewise.policies import Policy
from edgewise.policies.facts import DeviceFacts, Facts, LinkFacts, TimeFacts
from edgewise.router import AsyncRouter
from edgewise.router.config import loads
from edgewise.router.decision_log import MOST_WAITING, DecisionLog, DecisionLogSettings
from edgewise.router.decision_reading import Unreadable, facts_of, read_line
from edgewise.testing import Script, ScriptedBackend

ROOT = Path(__file__).parents[2]
SECRET = "the patient's finding"
TEXT = """\
version: 1
backends:
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    location: {process_in: [NL], store_in: [], operators: [NL]}
    quality: 0.9
  gateway: {kind: grpc, target: 127.0.0.1:50052, location: {process_in: [DE], store_in: [], operators: [DE]}}
policy:
  data_classes:
    personal: {process_in: [EU]}
    secret: {process_in: []}
  default_data_class: personal
  tags: {department: [ward]}
decision_log: {path: log/decisions.jsonl, max_size: 1MB, keep: 2}
"""


def router(folder: Path, **scripts: Script) -> AsyncRouter:
    (folder / "log").mkdir(exist_ok=True)
    backends = {name: ScriptedBackend(name, scripts.get(name)) for name in ("cloud", "gateway")}
    return AsyncRouter(loads(TEXT, folder), backends=dict(backends))


def lines(folder: Path, name: str = "decisions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(each) for each in (folder / "log" / name).read_text("utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def decision(number: int = 0) -> Decision:
    return Decision(f"{number:016x}", Task.GENERATE, ("public",), "v", 1.0, None, "a reason", (), (), ())


FACTS = Facts("a request", Labels(Task.GENERATE), LinkFacts(), DeviceFacts(), TimeFacts(9, 30, "monday"), ())


@cache
def policy() -> Policy:
    return loads(TEXT, "/").policy


def log(path: Path, max_size: int = 1_000_000, keep: int = 2) -> DecisionLog:
    settings = DecisionLogSettings(FilePath(str(path)), ByteSize(max_size), keep)
    return DecisionLog(settings, lambda: datetime(2026, 3, 2, 9, 30))


async def test_every_request_has_its_line_and_no_line_has_content(tmp_path: Path) -> None:
    lost = AttemptError(FailureKind.UNREACHABLE, "it is away")
    async with router(tmp_path, cloud=Script(failure=lost)) as opened:
        answer = await opened.generate(SECRET, tags={"department": SECRET})
        async with aclosing(opened.stream(SECRET)) as chunks:
            async for _ in chunks:
                pass
        async with aclosing(opened.stream(SECRET)) as chunks:
            await anext(chunks)
        await opened.embed([SECRET])
        with pytest.raises(NoBackendPermitted):
            await opened.generate(SECRET, data_class="secret")
    written = lines(tmp_path)
    assert [each["outcome"] for each in written] == [
        "answered",
        "answered",
        "cancelled",
        "answered",
        "NoBackendPermitted",
    ]
    assert all(each["schema"] == 1 for each in written)
    first = written[0]
    assert (first["request_id"], first["answered_by"]) == (answer.decision.request_id, "gateway")
    tried = [(each["backend"], each["failure"]) for each in first["attempts"]]
    assert {("cloud", "unreachable"), ("gateway", None)} == set(tried)
    assert {each["code"] for each in written[-1]["refusals"]} == {"residency"}
    text = (tmp_path / "log" / "decisions.jsonl").read_text("utf-8")
    assert "finding" not in text
    assert "scripted" not in text


async def test_only_the_owner_may_read_it_even_where_others_could_before(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    for existing in (False, True):
        if existing:
            path.chmod(0o644)
        opened = log(path)
        opened.write(decision(), FACTS, policy(), "answered")
        await opened.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    opened = log(tmp_path / "d", max_size=4096)
    for number in range(60):
        opened.write(decision(number), FACTS, policy(), "answered")
    await opened.close()
    kept = names(tmp_path)
    assert kept == ["d", "d.1", "d.2"]
    assert all((tmp_path / name).stat().st_size <= 4096 for name in kept)
    numbers = [
        int(json.loads(each)["request_id"], 16)
        for name in reversed(kept)
        for each in (tmp_path / name).read_text("utf-8").splitlines()
    ]
    assert numbers == list(range(numbers[0], 60))


async def test_what_cannot_be_written_fails_nothing_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = log(tmp_path / "gone" / "d")
    for _ in range(2):
        opened.write(decision(), FACTS, policy(), "answered")
        await opened.close()
    assert opened.dropped == 2
    assert [each.message for each in caplog.records] == [
        "the decision log cannot be written, decisions are lost: No such file or directory"
    ]
    (tmp_path / "gone").mkdir()
    opened.write(decision(), FACTS, policy(), "answered")
    await opened.close()
    assert json.loads((tmp_path / "gone" / "d").read_text("utf-8"))["dropped"] == 2


async def test_what_comes_faster_than_the_disk_is_dropped_and_counted(tmp_path: Path) -> None:
    opened = log(tmp_path / "d", max_size=10_000_000)
    for number in range(MOST_WAITING + 5):
        opened.write(decision(number), FACTS, policy(), "answered")
    assert opened.dropped == 5
    await opened.close()
    opened.write(decision(), FACTS, policy(), "answered")
    await opened.close()
    written = [json.loads(each) for each in (tmp_path / "d").read_text("utf-8").splitlines()]
    assert len(written) == MOST_WAITING + 1
    assert sum(each["dropped"] for each in written) == 5


async def test_neither_a_link_nor_a_pipe_is_written_to(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("pipe", "link"):
        opened = log(tmp_path / name)
        opened.write(decision(), FACTS, policy(), "answered")
        async with asyncio.timeout(10):
            await opened.close()
        assert opened.dropped == 1
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("keep: -1", "write 0 or more"), ("keep: 2, max_size: 10B", "4096B"), ("kep: 2", "did you mean 'keep'")],
)
def test_settings_that_cannot_be_meant_are_mistakes(tmp_path: Path, wrong: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        loads(TEXT.replace("max_size: 1MB, keep: 2", wrong), tmp_path)


async def test_a_line_has_what_it_takes_to_judge_it_again(tmp_path: Path) -> None:
    away = AttemptError(FailureKind.UNREACHABLE, "it is away")
    async with router(tmp_path, cloud=Script(failure=away)) as opened:
        options: list[dict[str, Any]] = [
            {"tags": {"department": "ward", "patient": SECRET}, "priority": "high", "latency_budget": 7.5},
            {"data_class": ["personal", "secret"]},
            {"residency": {"process_in": ["DE", "FR"]}, "backend": "gateway", "max_output_tokens": 5},
            {"response_format": {"type": "json_object"}, "idempotent": False, "logprobs": 2},
        ]
        for each in options:
            with contextlib.suppress(RequestError):
                await opened.generate(SECRET, **each)
        opened.connectivity.force("offline")
        with pytest.raises(Offline):
            await opened.generate(SECRET)
    written = (tmp_path / "log" / "decisions.jsonl").read_bytes()
    assert b"finding" not in written
    assert len(written.splitlines()) == 5
    for raw in written.splitlines():
        recorded = read_line(raw)
        plan = policy().plan(facts_of(recorded, policy(), {}))
        line = recorded.line
        assert [each.backend for each in plan.steps] == [each["backend"] for each in line["steps"]]
        assert [(each.backend, each.code) for each in plan.refusals] == [
            (each["backend"], each["code"]) for each in line["refusals"]
        ]
        assert [each.reason for each in plan.steps] == [each["reason"] for each in line["steps"]]
        assert plan.data_classes == tuple(line["data_classes"])
        assert plan.latency_budget == line["latency_budget"]
    assert json.loads(written.splitlines()[0])["labels"]["tags"] == {"department": "ward"}


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"7", b'{"schema":2}', b'{"schema":1}', b"[" * 100_000, b'{"schema":1,"attempts":7}', b"\xff"],
)
def test_what_is_no_decision_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read_line(raw)


async def test_a_line_that_did_not_fit_on_the_disk_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """A limit on the size of files is as good as a full disk: the kernel writes a part, and then refuses."""
    code = f"""
import asyncio, resource, signal
from tests.router.test_decision_log import FACTS, decision, log, policy
from pathlib import Path

async def main():
    opened = log(Path({str(tmp_path / "d")!r}))
    for number in range(20):
        opened.write(decision(number), FACTS, policy(), "answered")
    await opened.close()
    told = opened.dropped
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    opened.write(decision(99), FACTS, policy(), "answered")
    await opened.close()
    print(told, opened.dropped)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "decisions are lost: File too large" in done.stderr
    lost, after = map(int, done.stdout.split())
    written = [json.loads(each) for each in (tmp_path / "d").read_text("utf-8").splitlines()]
    assert 0 < lost < 20
    assert after == 0
    assert [each["dropped"] for each in written] == [0] * (20 - lost) + [lost]


async def test_a_line_that_a_crash_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_bytes(b'{"schema":1,"at":"2026')
    opened = log(path)
    opened.write(decision(5), FACTS, policy(), "answered")
    await opened.close()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"schema":1,"at":"2026'
    assert read_line(whole).line["request_id"] == f"{5:016x}"


async def test_a_disk_that_hangs_delays_no_request_and_holds_few_decisions(tmp_path: Path) -> None:
    hangs = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    loop.run_in_executor(None, hangs.wait)
    try:
        async with router(tmp_path) as opened:
            async with asyncio.timeout(30):
                for _ in range(20):
                    assert (await opened.generate(SECRET)).backend == "cloud"
            assert not (tmp_path / "log" / "decisions.jsonl").exists()
            hangs.set()
    finally:
        hangs.set()
    assert len(lines(tmp_path)) == 20
