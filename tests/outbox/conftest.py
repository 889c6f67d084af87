"""Stores in a test's own folder, and routers with an outbox over scripted backends."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgewise.core.content import GenerateInput
from edgewise.core.request import Priority
from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, AttemptError, DeadLetter, FailureKind, OutboxError
from edgewise.router.config import loads
from edgewise.router.outbox import Quota, Receipt, Store
from edgewise.router.outbox.entry import NewEntry
from edgewise.testing import Script, ScriptedBackend

ROOMY = Quota(entries=1000, bytes=1_000_000)
START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

CONFIGURATION = """\
version: 1
backends:
  cloud:
    kind: grpc
    target: 127.0.0.1:50051
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    quality: 0.9
policy:
  data_classes:
    public: {{process_in: [any]}}
    personal: {{process_in: {personal}, operators: [EU, US]}}
    secret: {{process_in: [any], queue: false}}
  default_data_class: public
  defaults: {{latency_budget: 20s}}
  offline: {{outbox: outbox.db, {offline}}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path)


def entry(
    name: str,
    *,
    content: str = '{"messages": []}',
    at: float = 1000.0,
    ttl: float = 3600.0,
    priority: Priority = Priority.NORMAL,
    order_key: str | None = None,
) -> NewEntry:
    """A request to queue whose receipt and key are told by its name."""
    return NewEntry(Receipt(name), f"key-{name}", "{}", content, at, at + ttl, priority, order_key)


def loop_clock() -> datetime:
    """A wall clock that goes with the event loop's."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())


RouterMaker = Callable[..., AsyncRouter]


def failing(kind: FailureKind) -> Script:
    return Script(failure=AttemptError(kind, f"it is {kind}"))


def received(backend: ScriptedBackend) -> list[str]:
    contents = [call.content for call in backend.calls]
    return [content.messages[-1].text for content in contents if isinstance(content, GenerateInput)]


async def end_of(router: AsyncRouter, receipt: Receipt) -> str:
    """How a queued request ended, within twenty minutes."""
    try:
        return "waits" if await router.result(receipt, timeout="20m") is None else "answered"
    except DeadLetter as error:
        return error.reason
    except OutboxError:
        return "not known"


def alter(path: Path, statement: str, *values: object) -> None:
    """Write what no check would let pass."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statement, values)
    connection.close()


@pytest.fixture
def make_router(tmp_path: Path) -> RouterMaker:
    """Makes a router with an outbox over a backend called cloud; ``offline`` adds to that section of its policy."""

    def make(
        cloud: ScriptedBackend,
        *,
        place: str = "NL",
        personal: str = "[EU]",
        offline: str = "queue_ttl: 24h",
        replay: bool = False,
    ) -> AsyncRouter:
        text = CONFIGURATION.format(personal=personal, offline=offline)
        return AsyncRouter(
            loads(text.replace("[NL]", f"[{place}]"), tmp_path),
            backends={"cloud": cloud},
            random_source=random.Random(7),
            wall_clock=loop_clock,
            sample=DeviceFacts,
            replay=replay,
        )

    return make
