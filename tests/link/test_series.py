"""The link over mobile networks, in virtual time: how often one that works is taken for lost."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.connectivity import Trace, made_up_traces, run


@pytest.mark.parametrize("trace", made_up_traces(120.0), ids=lambda trace: trace.name)
def test_a_slow_link_is_hardly_ever_taken_for_a_dead_one(trace: Trace) -> None:
    runs = [run(trace, every=5.0, outages=False, seed=seed) for seed in range(3)]
    false, worked = sum(each.false_offline for each in runs), sum(each.worked for each in runs)
    print(f"{trace.name}: falsely offline for {false / worked:.2%} of {worked:.0f} s")
    assert false <= 0.02 * worked


def test_each_outage_is_seen_and_its_end_too() -> None:
    *_, good = made_up_traces(240.0)
    runs = [run(good, every=1.0, outages=True, seed=seed) for seed in range(1, 5)]
    seen_after = [after for each in runs for after in each.seen_after]
    assert (len(seen_after), sum(each.unseen for each in runs)) == (12, 0)
    assert statistics.median(seen_after) <= 2.0
    # Until the next request, its silence, and the longest time that a slow link is given.
    assert max(seen_after) <= 1.5 + 0.5 + 3.0
    assert max(after for each in runs for after in each.back_after) <= 3.0
