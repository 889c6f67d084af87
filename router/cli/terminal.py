"""Where a command writes: colours and moving parts on a terminal only, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE_ENOUGH = 120


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr. It obeys NO_COLOR; nothing in texts is taken for markup.

    Where there is no terminal whose width counts, lines are as wide as a log's.
    """
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=_WIDE_ENOUGH)
    return made


@contextmanager
def busy(on: Console, what: str, *, say: bool = False) -> Iterator[None]:
    """Show that something takes its time: a spinner on a terminal; elsewhere a line if ``say``."""
    if on.is_terminal:
        with on.status(what):
            yield
        return
    if say:
        on.print(what)
    yield
