"""The outbox's part of a seed: its story is told and judged, and added to the seed's report."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .outbox_judge import judge
from .outbox_lives import tell
from .simulation import Report

EVERY = 4
"""Every so many seeds have an outbox as well: a story has four routers, and each reads its configuration."""


def with_outbox(report: Report) -> Report:
    """The report with what the seed's outbox came to."""
    if report.seed % EVERY:
        return report
    story = tell(report.seed)
    ends = Counter(report.ends) + Counter(story.ends)
    return replace(
        report,
        requests=report.requests + len(story.ends),
        attempts=report.attempts + sum(len(each.calls) for life in story.lives for each in life.backends.values()),
        ends=dict(ends),
        digest=f"{report.digest}-{story.digest}",
        violations=(*report.violations, *judge(story)),
    )
