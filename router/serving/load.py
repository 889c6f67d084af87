"""How fast a model generates, lately."""

from __future__ import annotations

import asyncio
import math

_WINDOW = 10.0
"""Seconds: what is older counts little."""


class Pace:
    """The tokens of all calls a second: an exponential mean over about `_WINDOW`, without its start's bias."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._weight = 0.0
        self._at: float | None = None

    def count(self, tokens: int) -> None:
        """So many tokens were generated now."""
        self._age()
        self._tokens += tokens

    def tokens_per_second(self) -> float | None:
        """``None`` before the first token."""
        if self._at is None:
            return None
        self._age()
        return self._tokens / self._weight if self._weight > 0 else None

    def _age(self) -> None:
        now = asyncio.get_running_loop().time()
        passed = 0.0 if self._at is None else now - self._at
        kept = math.exp(-passed / _WINDOW)
        self._tokens *= kept
        self._weight = self._weight * kept + _WINDOW * (1.0 - kept)
        self._at = now
