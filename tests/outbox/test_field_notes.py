"""The example: a recorder of field notes works a day without network, and catches up in the evening."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgewise.core.content import GenerateInput
from edgewise.testing import ScriptedBackend, run_in_virtual_time

from .conftest import CONFIGURATION, RouterMaker

EXAMPLE = Path(__file__).parents[2] / "examples" / "field_notes.py"
HOUR = 3600.0


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("field_notes", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_day_offline(example: ModuleType, make_router: RouterMaker, tmp_path: Path) -> None:
    cloud = ScriptedBackend("cloud")
    folder = tmp_path / "notes"
    expected = [f"note-{number:02}" for number in range(12)]

    async def day() -> None:
        for number, name in enumerate(expected):  # the device is switched on for each note, and off again
            async with make_router(cloud, replay=True) as router:
                router.connectivity.force("offline")
                notes = example.FieldNotes(folder, router)
                await notes.submit_all()
                await notes.record(name, f"Heron {number} at the north pond")
                await asyncio.sleep(0.5 * HOUR / 12)
                assert await notes.collect() == 0
        assert cloud.calls == []
        # It went off between keeping a note and queueing it.
        (folder / "note-99.json").write_text(json.dumps({"text": "A late otter"}))

        async with make_router(cloud, replay=True) as router:
            notes = example.FieldNotes(folder, router)
            await notes.submit_all()
            began = asyncio.get_running_loop().time()
            collected = 0
            while collected < 13:
                await asyncio.sleep(1)
                collected += await notes.collect()
            assert asyncio.get_running_loop().time() - began < 60
            assert notes.missing() == []
            assert await notes.collect() == 0

    run_in_virtual_time(day())
    texts = [call.content.messages[0].text for call in cloud.calls if isinstance(call.content, GenerateInput)]
    assert [text.splitlines()[-1] for text in texts] == [
        *(f"Heron {number} at the north pond" for number in range(12)),
        "A late otter",
    ]
    assert [call.context.idempotency_key for call in cloud.calls] == [*expected, "note-99"]
    assert json.loads((folder / "note-00.json").read_text())["summary"] == "a scripted answer"


def test_the_program_records_without_network(tmp_path: Path) -> None:
    text = CONFIGURATION.format(personal="[EU]", offline="queue_ttl: 24h")
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    for arguments in (["A heron"], ["An otter"]):
        ended = subprocess.run(
            [sys.executable, str(EXAMPLE), "edgewise.yaml", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
    notes = sorted((tmp_path / "notes").glob("*.json"))
    assert len({json.loads(note.read_text())["receipt"] for note in notes}) == 2
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE), "edgewise.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.startswith("0 came back; still without a summary: 20")  # nobody listens at that address
