"""Python that somebody else wrote, held to so much time and memory. Runs in the worker."""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TypeVar

import psutil

_LOOKS_EVERY = 0.2

_Result = TypeVar("_Result")


_one_at_a_time = threading.Lock()
"""For all of them, because the memory is the process's."""


class BeyondBounds(Exception):
    """It took too long, or wanted too much memory."""


class Bounds:
    """Runs one piece of such Python after another, each for ``seconds`` at most, and ``memory`` bytes more than before.

    It is ended between two of its bytecodes: one native operation without end goes on. For any thread.
    """

    def __init__(self, *, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._memory = memory
        self._process = psutil.Process()
        self._deciding = threading.Lock()
        self._running: tuple[int, float] | None = None
        self._watch: threading.Thread | None = None

    def run(self, work: Callable[[], _Result]) -> _Result:
        """What ``work`` returns. Raises `BeyondBounds`."""
        with _one_at_a_time, self._bounded_memory(), self._bounded_time():
            try:
                return work()
            except MemoryError:
                raise BeyondBounds from None

    @contextmanager
    def _bounded_memory(self) -> Iterator[None]:
        """No allocation succeeds that makes the process so much larger, where the system can be told so (Linux)."""
        if sys.platform != "linux":
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = self._process.memory_info().vms + self._memory
        if soft == resource.RLIM_INFINITY or limit < soft:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    @contextmanager
    def _bounded_time(self) -> Iterator[None]:
        if self._watch is None:
            # One for all, because starting a thread takes longer than most of what it would watch.
            self._watch = threading.Thread(target=self._look, name="bounds", daemon=True)
            self._watch.start()
        thread = threading.get_ident()
        self._running = thread, monotonic() + self._seconds
        try:
            yield
        finally:
            with self._deciding:
                self._running = None
                # What was raised and has not arrived is taken back.
                _raise_in(thread, None)

    def _look(self) -> None:
        while True:
            sleep(_LOOKS_EVERY)
            with self._deciding:
                if self._running is not None and monotonic() > self._running[1]:
                    _raise_in(self._running[0], BeyondBounds)
                    self._running = None


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Have a thread raise this at its next bytecode."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
