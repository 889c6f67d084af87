"""Recorded decisions as commands read them: one after the other, however long the log is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ...core.errors import InvalidRequest
from .ending import CommandError
from .terminal import console

if TYPE_CHECKING:
    from ...policies import Policy
    from ...policies.facts import Facts
    from ..decision_reading import Recorded

_LONGEST_LINE = 1 << 20


@dataclass(slots=True)
class Reading:
    """How reading went. ``unjudged`` are the reasons why a policy could not judge a decision, each with its count.

    ``backends`` are all that the log knows.
    """

    decisions: int = 0
    unreadable: int = 0
    first: datetime | None = None
    last: datetime | None = None
    unjudged: Counter[str] = field(default_factory=Counter)
    backends: set[str] = field(default_factory=set)

    def show(self) -> None:
        """Say it to people."""
        when = "" if self.first is None else f", {self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{counted(self.decisions, 'decision')}{when}")
        if self.unreadable:
            click.echo(f"left out: {counted(self.unreadable, 'line')} that could not be read")
        for why, count in self.unjudged.most_common():
            click.echo(f"left out: {counted(count, 'decision')}: {why}")

    def as_dict(self) -> dict[str, Any]:
        """It as JSON takes it."""
        return {
            "decisions": self.decisions,
            "from": None if self.first is None else self.first.isoformat(),
            "to": None if self.last is None else self.last.isoformat(),
            "unreadable": self.unreadable,
            "unjudged": dict(self.unjudged),
        }


def judged(
    logs: Sequence[Path], policies: Sequence[Policy], assumed: dict[str, float], reading: Reading
) -> Iterator[tuple[Recorded, list[Facts]]]:
    """Every recorded decision with its facts for each of these policies; a bar shows the way on a terminal.

    Raises `CommandError` for a file that cannot be read.
    """
    from ..decision_reading import Unreadable, facts_of, read_line

    for raw in _lines(logs):
        try:
            recorded = read_line(raw)
            facts = [facts_of(recorded, policy, assumed) for policy in policies]
            for policy, each in zip(policies, facts, strict=True):
                policy.effective_classes(each.labels)  # says at once what it does not know
        except Unreadable:
            reading.unreadable += 1
            continue
        except InvalidRequest as error:
            reading.unjudged[str(error)] += 1
            continue
        reading.decisions += 1
        reading.backends.update(recorded.line["backends"])
        reading.first = recorded.at if reading.first is None else min(reading.first, recorded.at)
        reading.last = recorded.at if reading.last is None else max(reading.last, recorded.at)
        yield recorded, facts


def _lines(logs: Sequence[Path]) -> Iterator[bytes]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    on = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=on, transient=True, disable=not on.is_terminal) as bars:
            for log in logs:
                bar = bars.add_task(log.name, total=log.stat().st_size)
                with log.open("rb") as stream:
                    while raw := _line(stream):
                        bars.advance(bar, len(raw))
                        if raw.strip():
                            yield raw
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be read: {error.strerror}", "name a decision log") from None


def _line(stream: BinaryIO) -> bytes:
    """The next line; of one that is longer than any decision, its beginning alone."""
    raw = stream.readline(_LONGEST_LINE)
    if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
        while (rest := stream.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
    return raw


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
