from __future__ import annotations

import struct
from typing import Any

import pytest

from edgewise.backends.process.frames import FrameError, FrameReader, encode


def test_frames_survive_any_chopping() -> None:
    sent: list[tuple[dict[str, Any], bytes]] = [
        ({"op": "call", "text": "ä\ud800"}, b"\0\1" * 50),
        ({}, b""),
        ({"n": [1, None, 2.5]}, b"x"),
    ]
    stream = b"".join(encode(header, payload) for header, payload in sent)
    for size in (1, 3, 7, len(stream)):
        reader = FrameReader()
        frames = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
        assert [(frame.header, frame.payload) for frame in frames] == sent


def test_a_frame_beyond_the_limit_is_refused_by_both_sides() -> None:
    with pytest.raises(FrameError):
        encode({}, bytes(101), limit=100)
    with pytest.raises(FrameError):
        FrameReader(limit=100).feed(struct.pack("!II", 50, 51))


@pytest.mark.parametrize("text", [b"null", b"[]", b"{", b"\xff\xff", b"[" * 100_000])
def test_a_header_that_is_no_json_object_is_an_error(text: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(struct.pack("!II", len(text), 0) + text)


def test_a_frame_shows_no_content() -> None:
    (frame,) = FrameReader().feed(encode({"text": "secret"}, b"secret"))
    assert "secret" not in repr(frame)
