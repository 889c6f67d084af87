"""What a conversation has been about, so that its data classes only tighten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

REMEMBERED = 10_000


class Conversations:
    """The data classes seen under each conversation's id. The least recently used are forgotten beyond `REMEMBERED`."""

    def __init__(self) -> None:
        self._classes: OrderedDict[str, frozenset[str]] = OrderedDict()

    def classes(self, conversation: str) -> frozenset[str]:
        """What was seen under this id."""
        return self._classes.get(conversation, frozenset())

    def remember(self, conversation: str, classes: Iterable[str]) -> None:
        """Add to what was seen under this id."""
        self._classes[conversation] = self._classes.pop(conversation, frozenset()).union(classes)
        if len(self._classes) > REMEMBERED:
            self._classes.popitem(last=False)
