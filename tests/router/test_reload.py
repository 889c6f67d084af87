"""A router takes a new version of its file between two requests, or keeps the one it has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from edgewise.backends import CallContext
from edgewise.core.answer import GenerateEvent
from edgewise.core.content import GenerateInput
from edgewise.core.errors import BackendError, ConfigurationError, NoBackendPermitted
from edgewise.core.failure import AttemptError, FailureKind
from edgewise.router import AsyncRouter, Router
from edgewise.testing import Script, ScriptedBackend, run_in_virtual_time

from ..cloud_and_gateway import TEXT, strict

STRICT = strict(TEXT)
ON_DEVICE = """
version: 1
models: {small: {source: "file:small.gguf"}}
backends: {phone: {kind: llama_cpp, model: small, location: device}}
policy: {data_classes: {personal: {process_in: [EU]}}, default_data_class: personal}
"""


class Gated(ScriptedBackend):
    """Enters a call, and goes on when it is told to."""

    def __init__(self, name: str, script: Script | None = None) -> None:
        super().__init__(name, script)
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def generate(self, call: GenerateInput, context: CallContext) -> AsyncGenerator[GenerateEvent, None]:
        self.entered.set()
        await self.go_on.wait()
        async with aclosing(super().generate(call, context)) as events:
            async for event in events:
                yield event


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration's file."""
    path = tmp_path / "edgewise.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def remove(file: Path) -> None:
    file.unlink()


def scripted() -> dict[str, ScriptedBackend]:
    return {name: ScriptedBackend(name) for name in ("cloud", "gateway")}


async def test_the_next_request_goes_by_the_new_version(file: Path) -> None:
    backends = scripted()
    async with AsyncRouter.from_yaml(file, backends=dict(backends)) as router:
        before = router.policy_version
        assert (await router.generate("one")).backend == "cloud"
        write(file, STRICT)
        await router.reload()
        answer = await router.generate("two")
        assert (answer.backend, len(backends["cloud"].calls)) == ("gateway", 1)
        assert answer.decision.policy_version == router.policy_version != before


def test_a_blocking_router_reloads_another_file_too(file: Path, tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text(STRICT, encoding="utf-8")
    with Router.from_yaml(file, backends=dict(scripted())) as router:
        router.reload(tmp_path / "strict.yaml")
        assert router.generate("a text").backend == "gateway"


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("operators: [EU, US]", "operators: [UE, US]", "no known place"),
        ("policy:", "policy: [", "not YAML"),
        ("127.0.0.1:50051", "127.0.0.1:50059", "'cloud' are others"),
        ("  gateway:", "  region:", "keeps its backends: cloud, gateway"),
    ],
)
async def test_a_bad_version_changes_nothing_and_says_why(file: Path, right: str, wrong: str, told: str) -> None:
    async with AsyncRouter.from_yaml(file, backends=dict(scripted())) as router:
        version = router.policy_version
        write(file, STRICT.replace(right, wrong) if right in STRICT else TEXT.replace(right, wrong))
        with pytest.raises(ConfigurationError, match=told):
            await router.reload()
        assert router.policy_version == version
        assert (await router.generate("a text")).backend == "cloud"


async def test_what_is_down_on_this_device_is_started_again(tmp_path: Path) -> None:
    file = tmp_path / "edgewise.yaml"
    write(file, ON_DEVICE)
    async with AsyncRouter.from_yaml(file) as router:
        await router.ready()
        for _ in range(2):
            with pytest.raises(BackendError, match="'small' has no file at"):
                await router.generate("one")
        (tmp_path / "small.gguf").write_bytes(b"no model")
        with pytest.raises(BackendError, match=r"'small' has no file at .* or a reload of the configuration at once"):
            await router.generate("two")
        await router.reload()
        with pytest.raises(BackendError, match="the first call after") as caught:  # it was opened, and is none
            await router.generate("three", latency_budget=20.0)
        assert "has no file" not in str(caught.value)


async def test_a_file_that_is_gone_changes_nothing(file: Path) -> None:
    async with AsyncRouter.from_yaml(file, backends=dict(scripted())) as router:
        remove(file)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await router.reload()
        assert (await router.generate("a text")).backend == "cloud"


async def test_what_a_backend_declares_may_change_while_it_runs(file: Path) -> None:
    async with AsyncRouter.from_yaml(file, backends=dict(scripted())) as router:
        write(file, TEXT.replace("operators: [US]", "operators: [CN]"))
        await router.reload()
        assert (await router.generate("a text")).backend == "gateway"
        with pytest.raises(NoBackendPermitted, match="CN"):
            await router.generate("a text", backend="cloud")


async def test_a_request_under_way_starts_nothing_that_the_new_walls_forbid(file: Path) -> None:
    lost = AttemptError(FailureKind.UNREACHABLE, "it is away")
    first, other = Gated("cloud", Script(failure=lost)), ScriptedBackend("gateway")
    async with AsyncRouter.from_yaml(file, backends={"cloud": first, "gateway": other}) as router:
        request = asyncio.create_task(router.generate("a text", latency_budget=20.0))
        async with asyncio.timeout(10):
            await first.entered.wait()
        write(file, TEXT.replace("process_in: [EU], operators: [EU, US]", "process_in: [NL], operators: [US]"))
        await router.reload()
        first.go_on.set()
        with pytest.raises(BackendError, match="no longer permitted"):
            await request
        assert other.calls == []


class TestWatch:
    """``watch=True``: a new version of the file comes into force by itself."""

    def test_a_changed_file_is_taken_within_two_seconds(self, file: Path) -> None:
        async def main() -> None:
            async with AsyncRouter.from_yaml(file, backends=dict(scripted()), watch=True) as router:
                assert (await router.generate("one")).backend == "cloud"
                write(file, STRICT)
                await asyncio.sleep(2.0)
                assert (await router.generate("two")).backend == "gateway"

        run_in_virtual_time(main())

    def test_so_is_one_that_changed_before_anybody_looked(self, file: Path) -> None:
        async def main() -> None:
            router = AsyncRouter.from_yaml(file, backends=dict(scripted()), watch=True)
            write(file, STRICT)
            async with router:
                await asyncio.sleep(2.0)
                assert (await router.generate("a text")).backend == "gateway"

        run_in_virtual_time(main())

    def test_a_bad_version_is_reported_once_and_the_next_good_one_is_taken(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            async with AsyncRouter.from_yaml(file, backends=dict(scripted()), watch=True) as router:
                version = router.policy_version
                write(file, STRICT.replace("[EU]", "[UE]"))
                await asyncio.sleep(20.0)
                assert router.policy_version == version
                assert (await router.generate("one")).backend == "cloud"
                remove(file)
                await asyncio.sleep(20.0)
                write(file, STRICT)
                await asyncio.sleep(2.0)
                assert (await router.generate("two")).backend == "gateway"

        run_in_virtual_time(main())
        bad, gone = (record.getMessage() for record in caplog.records)
        assert "is not taken, the running one stays" in bad
        assert "'UE' is no known place" in bad
        assert "cannot be read" in gone

    def test_a_file_put_in_anothers_place_is_taken_even_if_it_is_no_longer_and_no_younger(self, file: Path) -> None:
        newer = file.with_name("newer.yaml")
        write(newer, STRICT + " " * (len(TEXT) - len(STRICT)))
        before = file.stat()
        os.utime(newer, ns=(before.st_atime_ns, before.st_mtime_ns))

        async def main() -> None:
            async with AsyncRouter.from_yaml(file, backends=dict(scripted()), watch=True) as router:
                await asyncio.sleep(5.0)
                newer.replace(file)
                await asyncio.sleep(2.0)
                assert (await router.generate("a text")).backend == "gateway"

        run_in_virtual_time(main())

    def test_without_it_nobody_looks(self, file: Path) -> None:
        async def main() -> None:
            async with AsyncRouter.from_yaml(file, backends=dict(scripted())) as router:
                write(file, STRICT)
                await asyncio.sleep(60.0)
                assert (await router.generate("a text")).backend == "cloud"

        run_in_virtual_time(main())

    def test_a_file_that_is_still_being_written_is_left_alone(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            async with AsyncRouter.from_yaml(file, backends=dict(scripted()), watch=True) as router:
                await asyncio.sleep(5.0)
                for end in range(1, len(STRICT), len(STRICT) // 40):
                    write(file, STRICT[:end])
                    await asyncio.sleep(0.05)
                write(file, STRICT)
                await asyncio.sleep(2.0)
                assert (await router.generate("a text")).backend == "gateway"

        run_in_virtual_time(main())
        assert caplog.records == []


async def test_what_comes_after_is_paid_by_the_new_price(file: Path) -> None:
    priced = TEXT.replace("quality: 0.9", "quality: 0.9\n    price: {input: 0, output: 1.0}")
    write(file, priced)
    async with AsyncRouter.from_yaml(file, backends=dict(scripted())) as router:
        assert (await router.generate("one")).cost == pytest.approx(3e-6)
        write(file, priced.replace("output: 1.0", "output: 5.0"))
        await router.reload()
        assert (await router.generate("two")).cost == pytest.approx(15e-6)
        assert router.stats().backends["cloud"].attempts.cost == pytest.approx(18e-6)
