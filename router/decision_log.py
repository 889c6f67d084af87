"""The decision log: one line of JSON for each request, without content. docs/policy.md has its schema.

Writing never waits for the disk, and never fails a request: decisions wait in a bounded queue for a thread of the
loop's executor; what does not fit, or cannot be written, is counted and told in a later line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from ..core.decision import Decision
from ..core.problem import Problem
from ..core.settings import ByteSize, FilePath
from ..policies.facts import Facts
from .decision_line import line_of

if TYPE_CHECKING:
    from ..policies import Policy

log = logging.getLogger("edgewise")

MOST_WAITING = 1000
"""Decisions that may wait for the disk. More are dropped and counted."""

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a line is made of, once somebody has time to."""

    decision: Decision
    facts: Facts
    policy: Policy
    outcome: str
    at: datetime


class DecisionLog:
    """Writes decisions to a file. Used within one event loop; `close` waits until what was taken is written."""

    def __init__(self, settings: DecisionLogSettings, wall_clock: Callable[[], datetime]) -> None:
        self.dropped = 0
        """Decisions that are in no line, since the last line that told so."""
        self._settings = settings
        self._wall_clock = wall_clock
        self._waiting: deque[_Entry] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._complained = False

    @contextmanager
    def recording(self, decision: Decision, facts: Facts, policy: Policy) -> Iterator[None]:
        """Record a decision, made of these facts by this policy, when the block ends, and how it ended."""
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
            self.write(decision, facts, policy, outcome)

    def write(self, decision: Decision, facts: Facts, policy: Policy, outcome: str) -> None:
        """Take a decision down. Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(_Entry(decision, facts, policy, outcome, self._wall_clock().astimezone(UTC)))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self) -> None:
        """Wait until everything is written, for five seconds at most."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=_LONGEST_CLOSE)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            entries = list(self._waiting)
            dropped, self.dropped = self.dropped, 0
            written, error = await loop.run_in_executor(None, append, self._settings, entries, dropped)
            if error is not None:
                self.dropped += len(entries) - written + (0 if written else dropped)
                self._complain(error)
            for _ in entries:
                self._waiting.popleft()

    def _complain(self, error: Exception) -> None:
        """Once: a full disk would otherwise fill another log."""
        if not self._complained:
            self._complained = True
            log.error("the decision log cannot be written, decisions are lost: %s", _told(error))


def append(settings: DecisionLogSettings, entries: Sequence[_Entry], dropped: int) -> tuple[int, Exception | None]:
    """Write entries at the file's end, and begin a new one where it is full; the first line tells of those dropped.

    Returns how many lines are whole in the file, and what kept the others out. Blocks.
    """
    written = 0
    opened = -1
    try:
        opened, size = _open(settings.path)
        for entry in entries:
            data = line_of(
                entry.decision, entry.facts, entry.policy, entry.outcome, entry.at, 0 if written else dropped
            )
            if size and size + len(data) > settings.max_size:
                os.close(opened)
                opened = -1
                _rotate(settings)
                opened, size = _open(settings.path)
            _write_whole(opened, data, size)
            size += len(data)
            written += 1
    except Exception as error:  # noqa: BLE001  # a disk fails in many ways, and no request may fail with it
        return written, error
    finally:
        if opened >= 0:
            os.close(opened)
    return written, None


def _told(error: Exception) -> str:
    """Another error's text may hold anything, so only its type is told."""
    return str(error.strerror) if isinstance(error, OSError) else type(error).__name__


def _write_whole(opened: int, data: bytes, size: int) -> None:
    """Write a line, or nothing of it: the next one must not begin in its middle."""
    left = data
    try:
        while left:
            left = left[os.write(opened, left) :]
    except OSError:
        os.ftruncate(opened, size)
        raise


def _open(path: str) -> tuple[int, int]:
    """The file and its size. A line that a crash cut off is ended."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    opened = os.open(path, flags, 0o600)
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a plain file")
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(opened, 0o600)
        size = found.st_size
        if size and os.pread(opened, 1, size - 1) != b"\n":
            size += os.write(opened, b"\n")
    except BaseException:
        os.close(opened)
        raise
    return opened, size


def _rotate(settings: DecisionLogSettings) -> None:
    names = [settings.path, *[f"{settings.path}.{number}" for number in range(1, settings.keep + 1)]]
    if settings.keep == 0:
        os.unlink(settings.path)
    for newer, older in reversed(list(pairwise(names))):
        if os.path.exists(newer):
            os.replace(newer, older)
