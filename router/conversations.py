"""What a conversation has been about, and who has it so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from ..core.request import Residency

REMEMBERED = 100_000


@dataclass(slots=True)
class Conversation:
    """One conversation: what has bounded where it may go, which only becomes more, and the backend that keeps it.

    No content is here: whoever calls brings the whole history each time. ``backend`` is ``None`` before the first
    answer, and where only a stand-in gave the last one.
    """

    id: str
    classes: frozenset[str] = frozenset()
    residency: Residency | None = None
    backend: str | None = None

    def tighten(self, classes: Iterable[str], residency: Residency | None) -> None:
        """A turn had these data classes and this narrowing. Its content is part of all that follows."""
        self.classes = self.classes.union(classes)
        self.residency = self.narrowed(residency)

    def narrowed(self, residency: Residency | None) -> Residency | None:
        """A turn's narrowing together with those before it."""
        if self.residency is None or residency is None:
            return self.residency or residency
        return self.residency.meet(residency)


class Conversations:
    """The conversations by their ids. The least recently used are forgotten beyond `REMEMBERED`."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Conversation] = OrderedDict()

    def look(self, id_: str) -> Conversation:
        """The conversation of this id, a new one where there is none; nothing is remembered of the question."""
        return self._known.get(id_) or Conversation(id_)

    def remember(self, conversation: Conversation) -> None:
        """Keep what `look` gave, as the most recently used."""
        self._known[conversation.id] = conversation
        self._known.move_to_end(conversation.id)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
