"""Runs every fault and writes the table: ``python -m tests.faults.write_table``."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from .cases import CALLS, CROWD, CROWD_BUDGET, NAMES, Crowd, Row, observe, observe_crowd
from .catalogue import SLOW

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"

_HEAD = """# What happens when a server fails

Each row is one fault of a server, met by the real gRPC client on a budget of 1.5 s, or of 0.6 s where it lasts until
the deadline. `python -m tests.faults.write_table` runs them all and writes this file; the tests hold every row to what
a run gives. In every row the request ended within 50 ms of its deadline, by one answer or one typed error, and neither
the error nor the decision held any content.

'Failure' is what the decision records of the server: what happened, not which status code said so. That every message
of a stream comes twice is noticed where the server numbers them, as `edgewise serve` does. The one here does not, and a
model may repeat itself.

| fault | call | with a device beside it | the server alone | failure |
| --- | --- | --- | --- | --- |
"""


_CROWD = f"""
## Several calls at once

{CROWD} calls at once on a budget of {CROWD_BUDGET} s, at a server that takes one stream at a time (MAX_CONCURRENT_STREAMS) and {SLOW} s for
each. The library keeps back those that the server does not take, and says nothing of it. Every one ended in time.

| call | with a device beside it | the server alone |
| --- | --- | --- |
"""  # noqa: E501  # the lines are shorter where they are written


def table(rows: list[Row], crowds: list[Crowd]) -> str:
    """The whole file."""
    lines = "".join(row.line() + "\n" for row in rows)
    return _HEAD + lines + _CROWD + "".join(crowd.line() + "\n" for crowd in crowds)


async def _run() -> str:
    rows, crowds = [], []
    for fault in NAMES:
        for call in CALLS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(await observe(fault, call, Path(folder)))
                print(rows[-1].line(), f"late {max(rows[-1].with_device.late, rows[-1].alone.late):.3f}")
    for call in CALLS:
        with tempfile.TemporaryDirectory() as folder:
            crowds.append(await observe_crowd(call, Path(folder)))
            print(crowds[-1].line())
    return table(rows, crowds)


if __name__ == "__main__":
    TABLE.write_text(asyncio.run(_run()), encoding="utf-8")
