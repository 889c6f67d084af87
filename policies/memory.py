"""What was worked out once and is asked for again."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memory(dict[Key, Value]):
    """Remembers so many answers at ``most``; once it is full, it begins anew."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: Key, value: Value) -> Value:
        """Remember a value that was not known, and give it back."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value
