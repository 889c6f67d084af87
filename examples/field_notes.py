"""Record notes where there is no network, and have each summarised once there is.

``python examples/field_notes.py edgewise.yaml "A heron at the north pond"`` records a note and returns at once; without
a note it sends what waits and collects what has come back. The configuration names an outbox:
``policy: {offline: {outbox: notes.db}}``. Notes are kept in the folder ``notes`` as they are: to encrypt the outbox
encrypts what waits in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime
from pathlib import Path

from edgewise.router import AsyncRouter, EdgewiseError
from edgewise.router.config import load

ASK = "Summarise this field note in one sentence:\n\n"


def keep(folder: Path, text: str) -> str:
    """Keep a note on the disk, before anything else that could fail; returns its name."""
    folder.mkdir(exist_ok=True, mode=0o700)
    name = f"{datetime.now():%Y-%m-%dT%H-%M-%S-%f}"
    _write(folder / f"{name}.json", {"text": text})
    return name


class FieldNotes:
    """A folder of notes, one file each, and the router that summarises them.

    A note is on the disk before it is submitted, under a name that also is its idempotency key. So a crash at any
    moment leaves either no note, or one that `submit_all` submits again without summarising it twice.
    """

    def __init__(self, folder: Path, router: AsyncRouter) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True, mode=0o700)
        self._router = router

    async def submit_all(self) -> None:
        """Queue what was kept and not yet queued when the application last ended."""
        for file in sorted(self._folder.glob("*.json")):
            if "receipt" not in json.loads(file.read_text()):
                await self._submit(file.stem)

    async def collect(self) -> int:
        """Add the summaries that have come, or the reasons why there is none, to their notes; returns how many."""
        by_receipt = {note.get("receipt"): file for file, note in self._notes()}
        collected = 0
        async for result in self._router.results():
            file = by_receipt.get(result.receipt)
            if file is None:
                continue
            note = json.loads(file.read_text())
            if result.answer is not None:
                note["summary"] = result.answer.text
            else:
                note["no_summary"] = str(result.error)
            # Kept before the loop asks for the next result: a crash in between brings this one again.
            _write(file, note)
            collected += 1
        return collected

    def missing(self) -> dict[str, str]:
        """The names of notes without a summary, and why there is none."""
        return {file.stem: note.get("no_summary", "it waits") for file, note in self._notes() if "summary" not in note}

    async def _submit(self, name: str) -> None:
        file = self._folder / f"{name}.json"
        note = json.loads(file.read_text())
        receipt = await self._router.submit(
            ASK + note["text"], data_class="personal", order_key="notes", idempotency_key=name
        )
        _write(file, {**note, "receipt": receipt})

    def _notes(self) -> list[tuple[Path, dict[str, str]]]:
        return [(file, json.loads(file.read_text())) for file in sorted(self._folder.glob("*.json"))]


def _write(file: Path, note: dict[str, str]) -> None:
    """The whole note or nothing, also where the power fails."""
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("w") as written:
        json.dump(note, written)
        written.flush()
        os.fsync(written.fileno())
    unfinished.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)  # its new name, too
    os.close(folder)


async def main(configuration: str, text: str | None) -> None:
    """Record a note, or collect summaries."""
    folder = Path("notes")
    if text is not None:
        keep(folder, text)
    async with AsyncRouter(load(configuration)) as router:
        notes = FieldNotes(folder, router)
        await notes.submit_all()
        if text is not None:
            return
        await router.flush()
        print(f"{await notes.collect()} came back")
        for name, why in notes.missing().items():
            print(f"{name}: {why}")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
    except EdgewiseError as error:
        sys.exit(str(error))
