"""Where replays go, asserted where it counts: at the wire before a real gRPC server, whatever policy is in force."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgewise.core.content import GenerateInput
from edgewise.router import Answer, AsyncRouter, AttemptError, FailureKind, OutboxError
from edgewise.router.outbox import Store
from edgewise.router.serving import ServeSettings
from edgewise.router.serving.server import ModelServer
from edgewise.testing import Script, ScriptedBackend

from ..recorded_wire import RecordedWire

PRIVATE = "Zebulon Quartz has diabetes"
PUBLIC = "the weather at the north pond"
TEXT = """\
version: 1
backends:
  cloud:
    kind: grpc
    target: 127.0.0.1:{port}
    location: {{process_in: [NL], store_in: [], operators: [US], evidence: contractual}}
    remembers_keys: 0s
policy:
  data_classes:
    public: {{process_in: [any]}}
    personal: {{process_in: [EU], operators: {operators}}}
  default_data_class: personal
  defaults: {{latency_budget: 10s}}
  offline: {{outbox: outbox.db}}
"""
PATIENCE = "60s"


class Site:
    """A model server behind a relay that keeps every byte which was sent to it, and the device's configuration."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "edgewise.yaml"
        self.model = ScriptedBackend("model", self._script)
        self.failures: list[AttemptError] = []
        self._server = ModelServer(ServeSettings(listen="127.0.0.1:0", place="NL"), {"model": self.model})
        self._wire = RecordedWire(lambda: self._server.address)

    async def open(self) -> None:
        """Serve, and permit personal content to go there."""
        await self._server.start()
        await self._wire.open()
        self.permit()

    async def close(self) -> None:
        """End both."""
        await self._wire.close()
        await self._server.stop()

    def permit(self) -> None:
        """The policy lets personal content go to the server."""
        self._write("[EU, US]")

    def forbid(self) -> None:
        """The policy does not let personal content go there any more: its operator is in the US."""
        self._write("[EU]")

    @property
    def sent(self) -> bytes:
        """Every byte that went to the server."""
        return bytes(self._wire.sent)

    @property
    def received(self) -> list[tuple[str, str]]:
        """What the server's model received: prompt and idempotency key."""
        contents = [(call.content, call.context.idempotency_key) for call in self.model.calls]
        return [(content.messages[0].text, key) for content, key in contents if isinstance(content, GenerateInput)]

    def _write(self, operators: str) -> None:
        self.file.write_text(TEXT.format(port=self._wire.port, operators=operators), encoding="utf-8")

    def _script(self, call: int) -> Script:
        return Script(failure=self.failures.pop(0)) if self.failures else Script()


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site at work."""
    opened = Site(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def queued(site: Site) -> tuple[str, str]:
    """A private and a public request, submitted by a process that was offline and has ended."""
    async with AsyncRouter.from_yaml(site.file) as router:
        router.connectivity.force("offline")
        return await router.submit(PRIVATE), await router.submit(PUBLIC, data_class="public")


async def test_a_later_process_with_stricter_walls_sends_what_they_permit_and_nothing_else(site: Site) -> None:
    private, public = await queued(site)
    assert site.sent == b""
    site.forbid()
    async with AsyncRouter.from_yaml(site.file, replay=True) as router:
        assert isinstance(await router.result(public, timeout=PATIENCE), Answer)
        assert await router.result(private, timeout="3s") is None
    assert [text for text, _ in site.received] == [PUBLIC]
    assert PUBLIC.encode() in site.sent  # the recording works
    assert b"Zebulon" not in site.sent
    site.permit()
    async with AsyncRouter.from_yaml(site.file, replay=True) as router:
        assert isinstance(await router.result(private, timeout=PATIENCE), Answer)
    assert [text for text, _ in site.received] == [PUBLIC, PRIVATE]


async def test_walls_that_tighten_in_a_running_router_hold_for_its_next_replay(site: Site) -> None:
    async with AsyncRouter.from_yaml(site.file, replay=True) as router:
        router.connectivity.force("offline")
        private = await router.submit(PRIVATE)
        site.forbid()
        await router.reload()
        router.connectivity.force(None)
        public = await router.submit(PUBLIC, data_class="public")
        assert isinstance(await router.result(public, timeout=PATIENCE), Answer)
        assert await router.result(private, timeout="3s") is None
        assert b"Zebulon" not in site.sent


async def test_walls_that_tighten_between_two_sends_of_one_request_stop_the_second(site: Site) -> None:
    site.failures = [AttemptError(FailureKind.OVERLOADED, "too much to do") for _ in range(20)]
    private, _ = await queued(site)
    async with AsyncRouter.from_yaml(site.file) as router:
        tally = await router.flush()
        assert (tally.answered, tally.waiting) == (0, 2)
    before = site.received
    assert PRIVATE in [text for text, _ in before]
    assert len(set(before)) == 2, "each request keeps its key through all its sends"
    site.failures.clear()
    site.forbid()
    async with AsyncRouter.from_yaml(site.file) as router:
        tally = await router.flush()
        assert (tally.answered, tally.waiting) == (1, 1)
        assert await router.result(private) is None
    assert [text for text, _ in site.received[len(before) :]] == [PUBLIC]
    site.permit()
    async with AsyncRouter.from_yaml(site.file) as router:
        assert (await router.flush()).answered == 1
    assert site.received[-1] in before, "the last send has the key of the first"


async def test_a_request_whose_answer_was_lost_is_sent_again_and_run_once_where_the_server_remembers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Store, receipt: str, answer: str, now: float) -> bool:
        raise OutboxError("the process ends here")

    async with AsyncRouter.from_yaml(site.file) as router:
        receipt = await router.submit(PUBLIC, data_class="public")
        with monkeypatch.context() as dying:
            dying.setattr(Store, "finish", die)
            await router.flush()
        assert await router.result(receipt) is None
    [(_, key)] = site.received
    async with AsyncRouter.from_yaml(site.file) as router:
        assert (await router.flush()).answered == 1
        answer = await router.result(receipt)
    assert answer is not None
    assert answer.text == "a scripted answer"
    assert site.sent.count(key.encode()) == 2
    assert len(site.received) == 1


async def test_the_command_keeps_to_the_walls_too(site: Site) -> None:
    await queued(site)
    site.forbid()

    def flush() -> str:
        command = [sys.executable, "-m", "edgewise.router.cli", "queue", "flush", "-c", str(site.file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    said = await asyncio.to_thread(flush)
    assert said == "1 answered, 1 still waiting, 0 given up\n"
    assert [text for text, _ in site.received] == [PUBLIC]
    assert b"Zebulon" not in site.sent
