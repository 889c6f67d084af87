"""Tensors to `edgewise.v1.Tensor` and back, with their sizes proven. Both ends use it."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from ...core.answer import Embeddings, Usage
from ...core.content import Tensor
from ...protos.v1 import model_service_pb2 as wire

_ITEM_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


def to_message(tensor: Tensor) -> wire.Tensor:
    """The message of a tensor."""
    return wire.Tensor(dtype=tensor.dtype, shape=tensor.shape, data=tensor.data)


def from_message(message: wire.Tensor) -> Tensor:
    """The tensor of a message. Raises ``ValueError``, without content, where shape and bytes do not fit."""
    return checked(message.dtype, tuple(message.shape), message.data)


def checked(dtype: str, shape: tuple[int, ...], data: bytes) -> Tensor:
    """The tensor of these parts. Raises ``ValueError``, without content, where they do not fit."""
    if any(length < 0 for length in shape):
        raise ValueError("a tensor's shape has a negative length")
    count = math.prod(shape)
    if dtype == "string":
        strings_in(data, count)
    elif dtype not in _ITEM_BYTES:
        raise ValueError("a tensor's dtype is unknown; use numpy's names, or `string`")
    elif count * _ITEM_BYTES[dtype] != len(data):
        raise ValueError("a tensor's bytes do not fit its shape and dtype")
    return Tensor(dtype, shape, data)


def rows_of_floats(rows: Sequence[Sequence[float]]) -> Tensor:
    """Embeddings as float32 ``[n, d]``. Raises ``ValueError``, without content, for rows of several widths."""
    width = len(rows[0]) if rows else 0
    if not width or any(len(row) != width for row in rows):
        raise ValueError("embeddings are rows of one width")
    return Tensor("float32", (len(rows), width), b"".join(struct.pack(f"<{width}f", *row) for row in rows))


def join_embeddings(parts: Sequence[Embeddings]) -> Embeddings | None:
    """The answers of several calls as one; ``None`` where their vectors have several widths."""
    widths = {part.vectors.shape[1] for part in parts}
    if len(widths) != 1:
        return None
    count = sum(part.vectors.shape[0] for part in parts)
    vectors = Tensor("float32", (count, widths.pop()), b"".join(part.vectors.data for part in parts))
    usage = Usage(sum(part.usage.prompt_tokens for part in parts), sum(part.usage.output_tokens for part in parts))
    return Embeddings(vectors, usage, parts[0].model, parts[0].place)


def strings_in(data: bytes, count: int) -> list[str]:
    """The elements of a string tensor. Raises ``ValueError``, without content, where they are not whole, or too few."""
    texts, at, end = [], 0, len(data)
    while at < end:
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if begin > end or at > end:
            raise ValueError("a string tensor ends inside an element")
        text = _utf8(data[begin:at])
        if text is None:
            raise ValueError("a string tensor's element is not UTF-8")
        texts.append(text)
    if len(texts) != count:
        raise ValueError("a string tensor's elements do not fit its shape")
    return texts


def _utf8(element: bytes) -> str | None:
    try:
        return element.decode()
    except UnicodeDecodeError:  # not raised from: it holds the element
        return None
