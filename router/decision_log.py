"""The decision log: one line of JSON for each request, without content. docs/policy.md has its schema.

Writing never waits for the disk, and never fails a request: lines wait in a bounded queue for a thread of the loop's
executor; what does not fit, or cannot be written, is counted and told in a later line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any

from ..core.decision import Decision
from ..core.problem import Problem
from ..core.request import Labels
from ..core.settings import ByteSize, FilePath

log = logging.getLogger("edgewise")

SCHEMA = 1
"""The number that every line begins with. Keys may be added under it; none changes its meaning or goes."""

MOST_WAITING = 1000
"""Lines that may wait for the disk. More are dropped and counted."""

_LONGEST_CLOSE = 5.0
_SMALLEST = 4096
_TEN_MEGABYTES = ByteSize(10_000_000)


@dataclass(frozen=True, slots=True)
class DecisionLogSettings:
    """Where decisions are recorded, one line of JSON each."""

    path: Annotated[FilePath, "the file, readable by its owner alone; one process writes to it"]
    max_size: Annotated[ByteSize, "from this size on a new file is begun"] = _TEN_MEGABYTES
    keep: Annotated[int, "how many full files are kept, as PATH.1 (the newest), PATH.2, …"] = 5


def check(settings: DecisionLogSettings) -> list[Problem]:
    """What cannot be meant. Paths count from the section."""
    problems = []
    if settings.keep < 0:
        problems.append(Problem("fewer than no files cannot be kept", "write 0 or more", ("keep",)))
    if settings.max_size < _SMALLEST:
        problems.append(Problem("hardly a decision fits in", f"write {_SMALLEST}B or more", ("max_size",)))
    return problems


class DecisionLog:
    """Writes decisions to a file. Used within one event loop; `close` waits until what was taken is written."""

    def __init__(self, settings: DecisionLogSettings, wall_clock: Callable[[], datetime]) -> None:
        self.dropped = 0
        """Decisions that are in no line, since the last line that told so."""
        self._settings = settings
        self._wall_clock = wall_clock
        self._waiting: deque[dict[str, Any]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._complained = False

    @contextmanager
    def recording(self, decision: Decision, labels: Labels) -> Iterator[None]:
        """Record a decision when the block ends, and how it ended."""
        outcome = "answered"
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self.write(decision, labels, outcome)

    def write(self, decision: Decision, labels: Labels, outcome: str) -> None:
        """Take a decision down. Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        at = self._wall_clock().astimezone(UTC).isoformat(timespec="milliseconds")
        self._waiting.append(line_of(decision, labels, outcome, at))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self) -> None:
        """Wait until everything is written, for five seconds at most."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=_LONGEST_CLOSE)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            lines = list(self._waiting)
            dropped, self.dropped = self.dropped, 0
            lines[0]["dropped"] = dropped
            try:
                await loop.run_in_executor(None, append, self._settings, lines)
            except OSError as error:
                self.dropped += dropped + len(lines)
                self._complain(error)
            for _ in lines:
                self._waiting.popleft()

    def _complain(self, error: OSError) -> None:
        """Once: a full disk would otherwise fill another log."""
        if not self._complained:
            self._complained = True
            log.error("the decision log cannot be written, decisions are lost: %s", error.strerror)


def line_of(decision: Decision, labels: Labels, outcome: str, at: str) -> dict[str, Any]:
    """A decision as a line's keys. Of the labels only those that nobody chose the words of: no tags, no names."""
    return {
        "schema": SCHEMA,
        "at": at,
        "request_id": decision.request_id,
        "policy_version": decision.policy_version,
        "outcome": outcome,
        "answered_by": decision.answered_by,
        "dropped": 0,
        "task": decision.task.value,
        "data_classes": list(decision.data_classes),
        "prompt_tokens": labels.prompt_tokens,
        "max_output_tokens": labels.max_output_tokens,
        "priority": labels.priority.value,
        "streaming": labels.streaming,
        "latency_budget": decision.latency_budget,
        "first_token_budget": decision.first_token_budget,
        "planning": decision.planning,
        "ended": decision.ended,
        "reason": decision.reason,
        "steps": [
            {
                "backend": each.backend,
                "last_resort": each.last_resort,
                "starts_at": each.starts_at,
                "reason": each.reason,
            }
            for each in decision.steps
        ],
        "refusals": [
            {"backend": each.backend, "code": each.code.value, "sentence": each.sentence} for each in decision.refusals
        ],
        "matched_rules": list(decision.matched_rules),
        "notes": list(decision.notes),
        "attempts": [
            {
                "backend": each.backend,
                "reason": each.reason,
                "started": each.started,
                "first_token": each.first_token,
                "ended": each.ended,
                "failure": None if each.failure is None else each.failure.value,
                "sentence": each.sentence,
            }
            for each in decision.attempts
        ],
        "seams": [{"from": each.from_backend, "to": each.to_backend, "reason": each.reason} for each in decision.seams],
    }


def append(settings: DecisionLogSettings, lines: Sequence[dict[str, Any]]) -> None:
    """Write lines at the file's end, and begin a new one where it is full. Blocks. Raises ``OSError``."""
    opened = _open(settings.path)
    try:
        size = os.fstat(opened).st_size
        for line in lines:
            data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
            if size and size + len(data) > settings.max_size:
                os.close(opened)
                opened = -1
                _rotate(settings)
                opened, size = _open(settings.path), 0
            while data:
                written = os.write(opened, data)
                data, size = data[written:], size + written
    finally:
        if opened >= 0:
            os.close(opened)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    opened = os.open(path, flags, 0o600)
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        raise OSError(0, "it is not a plain file")
    if stat.S_IMODE(mode) != 0o600:
        os.fchmod(opened, 0o600)
    return opened


def _rotate(settings: DecisionLogSettings) -> None:
    names = [settings.path, *[f"{settings.path}.{number}" for number in range(1, settings.keep + 1)]]
    if settings.keep == 0:
        os.unlink(settings.path)
    for newer, older in reversed(list(pairwise(names))):
        if os.path.exists(newer):
            os.replace(newer, older)
