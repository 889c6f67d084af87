"""An event loop whose clock jumps to the next timer as soon as every task waits.

The idea is trio's ``MockClock`` with ``autojump_threshold=0``: hours of timeouts run in milliseconds, and the
same program runs the same way each time. Blocking work handed to an executor runs at once, in no time. Threads and
sockets are outside the virtual clock; replace them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


BEGINNING = 4096.0
"""What the clock shows at first. No 0, since no machine's clock does: whoever forgets to subtract a start must fail."""


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, now: float) -> None:
        super().__init__()
        self.now = now

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("every task waits, and no timer will wake one: the program hangs here")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Its clock begins anywhere, as a machine's does: measure from what it shows."""

    def __init__(self, begins_at: float = BEGINNING) -> None:
        self._jumping_selector = _JumpingSelector(begins_at)
        super().__init__(self._jumping_selector)
        # The loop calls timers due that lie within its clock's resolution: ours is exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._jumping_selector.now

    def run_in_executor(  # type: ignore[override]  # typeshed gives an awaitable of its own here
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run the function here and now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # whatever it raises is the future's
            future.set_exception(error)
        return future


def run_in_virtual_time(main: Coroutine[Any, Any, T], *, begins_at: float = BEGINNING) -> T:
    """Run a coroutine to its end in virtual time, as ``asyncio.run`` does in real time.

    Raises ``RuntimeError`` where the program would hang for ever.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(begins_at)) as runner:
        return runner.run(main)
