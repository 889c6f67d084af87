"""What runs in a worker: the contract of an engine, and what it sees of a call."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from ...core.failure import AttemptError, FailureKind
from .frames import JsonObject

Progress = Callable[[float], None]
"""Told how much of a loading is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What application and engine hand each other: ``fields`` that JSON can hold, and raw bytes.

    Large bytes that came to an engine are a look into memory that is shared, for as long as its call runs.
    """

    fields: JsonObject = field(repr=False)
    payload: bytes | memoryview = field(default=b"", repr=False)


class RunningCall:
    """One call, as the engine sees it while it runs.

    ``cancelled`` may be read from anywhere and at any time, native callbacks included. ``credit`` is how many more
    events the application has room for.
    """

    def __init__(self, credit: int) -> None:
        self.cancelled = False
        self._credit = credit
        self._changed = threading.Condition()
        self._stops: list[Callable[[], None]] = []

    def cancel(self) -> None:
        """Ask the engine to stop. Said by the control thread."""
        with self._changed:
            self.cancelled = True
            self._changed.notify_all()
            stops = self._stops.copy()
        for stop in stops:
            stop()

    def when_cancelled(self, stop: Callable[[], None]) -> None:
        """Have ``stop`` called on cancelling, by the control thread, or at once when that has been. It must not block.

        For native code that cannot look at ``cancelled`` by itself, and has a switch.
        """
        with self._changed:
            self._stops.append(stop)
            already = self.cancelled
        if already:
            stop()

    def add_credit(self, events: int) -> None:
        """There is room for so many more events. Said by the control thread."""
        with self._changed:
            self._credit += events
            self._changed.notify_all()

    def take_credit(self) -> bool:
        """Wait until there is room for one event; False when the call was cancelled instead."""
        with self._changed:
            while self._credit == 0 and not self.cancelled:
                self._changed.wait()
            self._credit -= 1
            return not self.cancelled


Events = Generator[Parcel, None, Parcel | None]
"""What an engine makes of a call."""


class Engine(ABC):
    """A native library in a worker process. Made without arguments, loaded once, then called until the process ends.

    `load` and `run` are called on an engine thread. Whatever is raised becomes an `AttemptError` in the application:
    an `AttemptError` as it is, anything else by the name of its type alone, for its text may quote content.
    """

    @abstractmethod
    def load(self, settings: JsonObject, progress: Progress) -> JsonObject:
        """Make ready; return what the application should know of the model. An exception here is MODEL_UNAVAILABLE.

        Where the library tells how far it is, hand that on to ``progress``.
        """

    @abstractmethod
    def run(self, call: Parcel, running: RunningCall) -> Events:
        """Do the work and yield its events. The last one may be returned instead, and goes over together with the end:
        a call with one result returns it.

        The generator is closed early when the call is cancelled. Long native work must watch
        ``running.cancelled`` itself and stop within 100 ms.
        """

    def ask(self, question: Parcel) -> Parcel:
        """Answer **beside** a running `run`, one question after another: only what is safe to do then.

        Short work, because it cannot be cancelled.
        """
        raise AttemptError(FailureKind.UNSUPPORTED, "this engine answers no questions beside its calls")
