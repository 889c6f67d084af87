"""What goes over the socket between the application and a worker: a length, a JSON header, raw bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]  # JSON; whoever reads a field judges its type

MAX_FRAME_BYTES = 256 << 20
"""The longest frame, header and payload together. A longer one is refused by its sender and breaks a connection."""

_LENGTHS = struct.Struct("!II")
_as_json = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make an encoder for each frame


class FrameError(Exception):
    """What arrived is not a frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: ``header`` has whatever JSON can hold, ``payload`` is bytes as they are."""

    header: JsonObject = field(repr=False)
    payload: bytes = field(default=b"", repr=False)


def encode(header: JsonObject, payload: bytes | memoryview = b"", *, limit: int = MAX_FRAME_BYTES) -> bytes:
    """The frame's bytes. Raises `FrameError` for one beyond ``limit``."""
    text = _as_json(header).encode("ascii")
    if len(text) + len(payload) > limit:
        raise FrameError(f"a frame of {len(text) + len(payload)} bytes is beyond the limit of {limit}")
    return b"".join((_LENGTHS.pack(len(text), len(payload)), text, payload))


class FrameReader:
    """Cuts a stream of bytes into frames, whichever way it is chopped up."""

    def __init__(self, *, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that are complete now. Raises `FrameError`; nothing can be read after that."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= _LENGTHS.size:
            header_bytes, payload_bytes = _LENGTHS.unpack_from(buffer, start)
            if header_bytes + payload_bytes > self._limit:
                raise FrameError(f"a frame announces more than {self._limit} bytes")
            middle = start + _LENGTHS.size + header_bytes
            end = middle + payload_bytes
            if end > len(buffer):
                break
            header = _read_header(buffer[start + _LENGTHS.size : middle])
            frames.append(Frame(header, bytes(buffer[middle:end])))
            start = end
        if start:
            del buffer[:start]
        return frames


def _read_header(text: bytearray) -> JsonObject:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise FrameError("a frame's header is not JSON") from None
    if not isinstance(header, dict):
        raise FrameError("a frame's header is not a JSON object")
    return header
