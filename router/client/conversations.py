"""What a conversation has been about, so that its data classes only tighten."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 10_000


class Conversations:
    """The data classes seen under each conversation's id. The least recently used are forgotten beyond `REMEMBERED`."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, frozenset[str]] = OrderedDict()

    def tighten(self, conversation: str, classes: frozenset[str]) -> frozenset[str]:
        """Add to what is known of a conversation; returns all of it."""
        known = self._classes.pop(conversation, frozenset()) | classes
        self._classes[conversation] = known
        if len(self._classes) > REMEMBERED:
            self._classes.popitem(last=False)
        return known
