"""How a sort of calls comes to one backend: by a breaker, to a place."""

from __future__ import annotations

from dataclasses import dataclass

from .breaker import Breaker
from .slots import Slots


@dataclass(frozen=True, slots=True)
class Lane:
    """A breaker, and the places behind it.

    Counting tokens has a lane of its own at each backend: it waits for no generation, and that it succeeds says
    nothing of whether one would.
    """

    breaker: Breaker
    slots: Slots
