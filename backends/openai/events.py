"""Server-sent events: from the bytes of a stream to the data of its events."""

from __future__ import annotations

LARGEST_EVENT = 4 * 1024 * 1024
"""The most bytes that may wait for the end of their line or event."""


class EventReader:
    """Takes bytes as they come, in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that ended. Raises ``ValueError`` for one that grows without end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        ended = []
        for line in lines:
            field = line.removesuffix(b"\r")
            if field.startswith(b"data:"):
                self._data.append(field[5:].removeprefix(b" "))
                self._size += len(field)
            elif not field and self._data:
                ended.append(b"\n".join(self._data))
                self._data.clear()
                self._size = 0
        if self._size + len(self._rest) > LARGEST_EVENT:
            raise ValueError("an event does not end")
        return ended
