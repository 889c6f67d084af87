"""How much of what came lay under the predicted 95th percentiles: ``make estimates TRACES=../shared/data``."""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgewise.core.request import Labels, Task
from edgewise.policies.facts import Prediction
from edgewise.router.estimates import Estimator
from edgewise.router.estimates.prior import REMOTE

from .series import Call, Series, made, recorded

WARM_UP = 30
"""So many first answers do not count: the long run begins after them."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The shares of answers within their predicted 95th percentiles."""

    answers: int
    first: float
    total: float


def coverage(calls: Sequence[Call], *, cut_after_p95: bool = False) -> Coverage:
    """Predict each call at its start, learn from it at its end, as a router does that has many under way.

    ``cut_after_p95``: a hedge stops every call that has no first token by its predicted 95th percentile, so that no
    longer one is ever seen whole.
    """
    now = 0.0
    estimator = Estimator(REMOTE, lambda: now)
    events: list[tuple[float, int, int]] = []
    order = count()
    for number, call in enumerate(calls):
        heapq.heappush(events, (call.at, next(order), number))
    trials, expected = {}, {}
    firsts, totals = [], []
    while events:
        now, _, number = heapq.heappop(events)
        call = calls[number]
        if number not in trials:
            labels = Labels(Task.GENERATE, prompt_tokens=call.prompt_tokens, max_output_tokens=1000)
            expected[number] = estimator.predict(labels, 0.0, loading=False)
            trials[number] = estimator.trial(labels, loading=False)
            heapq.heappush(events, (now + _until(call, expected[number], cut_after_p95), next(order), number))
            continue
        if now < call.at + call.first - 1e-9:
            trials[number].no_first(now - call.at)
        elif now < call.at + call.last - 1e-9:
            trials[number].first(call.first)
            heapq.heappush(events, (call.at + call.last, next(order), number))
            continue
        else:
            trials[number].whole(call.tokens, call.first, call.last)
        firsts.append(call.first <= expected[number].first.quantile_95())
        totals.append(call.last <= expected[number].total.quantile_95())
    firsts, totals = firsts[WARM_UP:], totals[WARM_UP:]
    return Coverage(len(firsts), sum(firsts) / len(firsts), sum(totals) / len(totals))


def _until(call: Call, expected: Prediction, cut_after_p95: bool) -> float:
    patience = expected.first.quantile_95() + 0.05
    return min(call.first, patience) if cut_after_p95 else call.first


def main() -> None:
    """Print the coverage of every series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, help="a folder of recorded series")
    traces = parser.parse_args().traces
    series: Series = made() if traces is None else {**made(), **recorded(traces)}
    table = Table("series", "answers", "first token", "whole answer", "first token, hedged")
    for name, calls in series.items():
        plain, hedged = coverage(calls), coverage(calls, cut_after_p95=True)
        shares = (plain.first, plain.total, hedged.first)
        table.add_row(name, str(plain.answers), *(f"{share:.1%}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
