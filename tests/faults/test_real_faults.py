"""The true client over the true gRPC stack, against servers that misbehave frame by frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import CALLS, LATE, NAMES, Outcome, observe, observe_crowd
from .write_table import TABLE

TYPED_ERRORS = {"BackendError", "DeadlineExceeded", "PartialAnswer"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", NAMES)
async def test_a_fault_breaks_no_promise(fault: str, call: str, tmp_path: Path) -> None:
    row = await observe(fault, call, tmp_path)
    for outcome in (row.with_device, row.alone):
        assert outcome.late <= LATE
        assert not outcome.leak
    assert row.with_device.end == "answered"
    assert row.alone.end in TYPED_ERRORS or row.alone.answered_by == "cloud"
    # A device that started beside the server may win before the fault shows.
    assert set(row.with_device.cloud) <= {*row.alone.cloud, "preempted", "stalled"}
    if call == "stream":
        assert_text_is_whole(row.with_device)
    assert row.line() in TABLE.read_text("utf-8").splitlines(), "run: python -m tests.faults.write_table"


@pytest.mark.parametrize("call", CALLS)
async def test_those_that_wait_behind_the_only_stream_end_in_time(call: str, tmp_path: Path) -> None:
    crowd = await observe_crowd(call, tmp_path)
    assert all(outcome.late <= LATE and not outcome.leak for outcome in crowd.with_device + crowd.alone)
    assert {outcome.end for outcome in crowd.with_device} == {"answered"}
    assert sum(outcome.answered_by == "cloud" for outcome in crowd.alone) >= 2
    assert {outcome.end for outcome in crowd.alone} == {"answered", "DeadlineExceeded"}
    assert crowd.line() in TABLE.read_text("utf-8").splitlines(), "run: python -m tests.faults.write_table"


def test_the_table_has_a_row_for_each_fault_and_call_and_no_other() -> None:
    faults, _ = TABLE.read_text("utf-8").split("\n## ")
    rows = [line for line in faults.splitlines() if line.startswith("| ")][2:]
    assert [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rows] == [
        (fault, call) for fault in NAMES for call in CALLS
    ]


def assert_text_is_whole(outcome: Outcome) -> None:
    """What was shown is one backend's text, or the server's up to the seam and the device's from there."""
    if outcome.answered_by == "cloud":
        assert outcome.text in ("one two ", "one one two two ")  # nothing tells a repeated chunk from a repeated word
        assert outcome.seams == ()
    elif outcome.seams:
        assert [(seam.from_backend, seam.to_backend) for seam in outcome.seams] == [("cloud", "phone")]
        assert outcome.text == "one two three four"
    else:
        assert outcome.text == "three four"
