"""The example: a recorder of field notes works a day without network, and catches up in the evening."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import secrets
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from edgewise.core.content import GenerateInput
from edgewise.core.settings import FilePath
from edgewise.policies.settings import EncryptionSettings
from edgewise.router.outbox import Store
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
    names: list[str] = []

    async def day() -> None:
        for number in range(12):  # the device is switched on for each note, and off again
            async with make_router(cloud, replay=True) as router:
                router.connectivity.force("offline")
                notes = example.FieldNotes(folder, router)
                names.append(example.keep(folder, f"Heron {number} at the north pond"))
                await notes.submit_all()
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
            assert notes.missing() == {}
            assert await notes.collect() == 0

    run_in_virtual_time(day())
    texts = [call.content.messages[0].text for call in cloud.calls if isinstance(call.content, GenerateInput)]
    assert [text.splitlines()[-1] for text in texts] == [
        *(f"Heron {number} at the north pond" for number in range(12)),
        "A late otter",
    ]
    assert [call.context.idempotency_key for call in cloud.calls] == [*names, "note-99"]
    assert json.loads((folder / f"{names[0]}.json").read_text())["summary"] == "a scripted answer"


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
    first, *waiting = ended.stdout.splitlines()
    assert first == "0 came back"  # nobody listens at that address
    assert waiting == [f"{note.stem}: it waits" for note in notes]


def test_a_note_is_kept_where_the_outbox_cannot_be_used_and_killed_programs_lose_none(tmp_path: Path) -> None:
    text = CONFIGURATION.format(personal="[EU]", offline="encryption: {key_file: key}")
    (tmp_path / "edgewise.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, str(EXAMPLE), "edgewise.yaml"]
    locked = subprocess.run([*command, "A heron"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (locked.returncode, "key" in locked.stderr) == (1, True)
    assert len(list((tmp_path / "notes").glob("*.json"))) == 1
    (tmp_path / "key").write_text(secrets.token_hex(32))
    dice = random.Random(3)
    for number in range(6):
        with subprocess.Popen([*command, f"Note {number}"], cwd=tmp_path) as program:
            while len(list((tmp_path / "notes").glob("*.json"))) < number + 2:
                assert program.poll() is None
                time.sleep(0.005)
            time.sleep(dice.uniform(0.0, 0.4))  # the instant of the kill is what is random here
            program.kill()
    subprocess.run([*command, "The last"], cwd=tmp_path, check=True)
    notes = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "notes").glob("*.json")}
    assert len(notes) == 8
    store = Store(tmp_path / "outbox.db", EncryptionSettings(key_file=FilePath(str(tmp_path / "key"))))
    queued = {str(entry.receipt): entry.idempotency_key for entry in store.all(0.0)}
    store.close()
    assert {note["receipt"]: name for name, note in notes.items()} == queued
    assert not any(b"Note" in file.read_bytes() for file in tmp_path.glob("outbox.db*"))
