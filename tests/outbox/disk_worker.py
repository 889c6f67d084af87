"""A day of an outbox on a disk that fails at a given call: run by test_every_write.py, with failing_disk.c preloaded.

Reads lines ``FOLDER CALL HOW`` and answers each with how that day ended and how many calls changed something. Each day
is a child of its own, forked from this process, which has imported everything and started no loop and no thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgewise.policies.facts import DeviceFacts
from edgewise.router import AsyncRouter, DeadLetter, EdgewiseError
from edgewise.router.config import loads
from edgewise.router.outbox import Receipt
from edgewise.testing import run_in_virtual_time

from .crash_worker import CONFIGURATION, Echo, Journal, look

MORNING = datetime(2026, 3, 2, 7, 0, tzinfo=UTC)
WAYS = ("kill", "torn", "power", "full")


def router_at(outbox: Path, began: datetime) -> AsyncRouter:
    """A router that replays, and whose wall clock goes with its loop's."""
    return AsyncRouter(
        loads(CONFIGURATION.format(outbox=outbox), outbox.parent),
        backends={"cloud": Echo("cloud")},
        random_source=random.Random(3),
        wall_clock=lambda: began + timedelta(seconds=asyncio.get_running_loop().time()),
        sample=DeviceFacts,
        replay=True,
    )


async def day(outbox: Path, journal: Journal) -> None:
    """Submit, cancel, wait for answers, read results, submit again; what fails for want of room is let go."""
    receipts: list[Receipt] = []
    async with router_at(outbox, MORNING) as router:
        for number, order_key in enumerate((None, "a", "a", None)):
            try:
                prompt = f"note-{number}-{'x' * 3000}"
                receipts.append(await router.submit(prompt, order_key=order_key))
                journal.write("receipt", receipts[-1], prompt)
            except EdgewiseError:
                continue
            if number == 0:
                await attempt_cancel(router, journal, receipts[-1])
        for receipt in receipts:
            try:
                await router.result(receipt, timeout="2m")
                await look(router, journal, receipt)
            except EdgewiseError:
                continue
        try:
            async for result in router.results():
                text = result.answer.text if result.answer is not None else f"dead {result.receipt}"
                journal.write("result", result.receipt, text)
        except EdgewiseError:
            return


async def attempt_cancel(router: AsyncRouter, journal: Journal, receipt: Receipt) -> None:
    """Cancel, if the disk lets us."""
    try:
        if await router.cancel(receipt):
            journal.write("cancelled", receipt)
    except EdgewiseError:
        return


async def evening(outbox: Path, receipts: Sequence[str]) -> dict[str, str]:
    """With a disk that works again: how each request ends."""
    ends: dict[str, str] = {}
    async with router_at(outbox, MORNING + timedelta(hours=2)) as router:
        await asyncio.sleep(600)
        for receipt in receipts:
            try:
                answer = await router.result(receipt)
            except DeadLetter as error:
                ends[receipt] = error.reason
            else:
                ends[receipt] = "waiting" if answer is None else "answered"
    return ends


def main() -> None:
    """One day for each line."""
    disk = ctypes.CDLL(None)
    for line in sys.stdin:
        folder, at, way = line.split()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            disk.fail_at(os.path.realpath(folder).encode(), int(at), WAYS.index(way))
            run_in_virtual_time(day(Path(folder) / "outbox.db", Journal(Path(folder).parent / "journal")))
            os.write(write, str(disk.changes_so_far()).encode())
            os._exit(0)
        os.close(write)
        counted = os.read(read, 100).decode() or "-"
        os.close(read)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), counted, flush=True)


if __name__ == "__main__":
    main()
