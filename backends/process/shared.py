"""Memory that the application and a worker both see, for what is too large to copy through a socket.

An anonymous file (``memfd``, Linux): it has no name anywhere, and is gone with the last process that holds it, however
that dies. Where there is none, or no room in it, bytes go through the socket.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading

from .frames import MAX_FRAME_BYTES

LEAST = 1 << 16
"""Fewer bytes than this go through the socket: two wake-ups cost more than copying them."""

_PAGE = mmap.PAGESIZE
_KEPT = 32 << 20
"""So much of it stays allocated for the next ones; fresh pages cost more than the copy does."""


class SharedArea:
    """An area that one side fills and frees, and the other looks at. Thread-safe.

    Blocks begin at pages. Addresses count from the area's beginning.
    """

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, MAX_FRAME_BYTES)
        self._blocks: dict[int, int] = {}
        self._lock = threading.Lock()

    def put(self, data: bytes | memoryview) -> int | None:
        """Copy bytes in; returns where they are, or None where there is no room."""
        length = len(data)
        with self._lock:
            start = self._gap(length)
            if start is None:
                return None
            self._blocks[start] = length
        self._map[start : start + length] = data
        return start

    def free(self, start: int) -> None:
        """Nobody looks at this block any more. Raises ``KeyError`` for what is none."""
        with self._lock:
            end = _up(start + self._blocks.pop(start))
            if end > _KEPT:
                fresh = max(start, _KEPT)
                self._map.madvise(mmap.MADV_REMOVE, fresh, end - fresh)

    def view(self, start: int, length: int) -> memoryview:
        """The bytes of a block, as long as it is not freed. Raises ``ValueError`` for what lies outside."""
        if not (start >= 0 and length >= 0 and start + length <= MAX_FRAME_BYTES):
            raise ValueError("this lies outside of the shared memory")
        return memoryview(self._map)[start : start + length]

    def _gap(self, length: int) -> int | None:
        start = 0
        for other, size in sorted(self._blocks.items()):
            if other - start >= length:
                break
            start = _up(other + size)
        return start if start + length <= MAX_FRAME_BYTES else None


def new_area() -> int | None:
    """A descriptor to make `SharedArea` of, in both processes; None where the system has no such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("edgewise", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    try:
        # Takes no memory before something is written, and nobody can shorten it under the other's eyes.
        os.ftruncate(descriptor, MAX_FRAME_BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _up(address: int) -> int:
    return -(-address // _PAGE) * _PAGE
