"""What a conversation has been about, and who has it so far."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

REMEMBERED = 100_000


@dataclass(slots=True)
class Conversation:
    """One conversation: the data classes that it has had, which only become more, and the backend that keeps it.

    No content is here: whoever calls brings the whole history each time. ``backend`` is ``None`` before the first
    answer, and where only a stand-in gave the last one.
    """

    id: str
    classes: frozenset[str] = frozenset()
    backend: str | None = None


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
