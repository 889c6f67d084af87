"""How far a long campaign is: told line by line, so that its log can be read while it runs."""

from __future__ import annotations

import time
from datetime import timedelta


class Progress:
    """Counts what is done of ``total``."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._began = time.monotonic()

    def tell(self, done: int, more: str) -> None:
        """Print it, with the rate so far and the time that is left at that rate."""
        took = time.monotonic() - self._began
        left = timedelta(seconds=round(took / done * (self._total - done)))
        rate = f"{done / took * 60:.0f} a minute, {left} left"
        print(f"{done} of {self._total} {self._what}, {more} ({rate})", flush=True)
