"""Tensors to the Open Inference Protocol's and back, raw and typed, with their sizes proven. Both ends use it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ...core.content import Tensor
from ...protos.foreign import oip_pb2 as wire
from .oip_settings import DATATYPES
from .tensor_messages import checked, strings_in

InputTensor = wire.ModelInferRequest.InferInputTensor
OutputTensor = wire.ModelInferResponse.InferOutputTensor
T = TypeVar("T", InputTensor, OutputTensor)

DATATYPE_OF = {dtype: datatype for datatype, dtype in DATATYPES.items()}
"""The protocol's element types, by numpy's names for them."""

_NOT_AS_MANY = "there are not as many raw contents as tensors"

_FIELDS = {
    "bool": ("bool_contents", "?"),
    "int8": ("int_contents", "b"),
    "int16": ("int_contents", "h"),
    "int32": ("int_contents", "i"),
    "int64": ("int64_contents", "q"),
    "uint8": ("uint_contents", "B"),
    "uint16": ("uint_contents", "H"),
    "uint32": ("uint_contents", "I"),
    "uint64": ("uint64_contents", "Q"),
    "float32": ("fp32_contents", "f"),
    "float64": ("fp64_contents", "d"),
}
"""Where typed contents stand, and how one element is laid out in bytes. Half floats can only be sent raw."""


def described(kind: type[T], name: str, tensor: Tensor) -> T:
    """The tensor's name, type and shape, without its contents. Raises ``ValueError`` for a type it does not have."""
    datatype = DATATYPE_OF.get(tensor.dtype)
    if datatype is None:
        raise ValueError("a tensor's type is none of the protocol's")
    return kind(name=name, datatype=datatype, shape=tensor.shape)


def typed(kind: type[T], name: str, tensor: Tensor) -> T:
    """The tensor with its elements. Raises ``ValueError`` for half floats."""
    message = described(kind, name, tensor)
    if tensor.dtype == "string":
        message.contents.bytes_contents.extend(_elements(tensor.data))
        return message
    if tensor.dtype not in _FIELDS:
        raise ValueError("half floats have no typed contents; send raw ones")
    field, code = _FIELDS[tensor.dtype]
    count = len(tensor.data) // struct.calcsize(code)
    getattr(message.contents, field).extend(struct.unpack(f"<{count}{code}", tensor.data))
    return message


def from_wire(tensors: Sequence[T], raw: Sequence[bytes]) -> dict[str, Tensor]:
    """The tensors of a message, by name. Raises ``ValueError``, without content, where they do not fit their shapes."""
    if raw and len(raw) != len(tensors):
        raise ValueError(_NOT_AS_MANY)
    return {each.name: _tensor(each, raw[at] if raw else None) for at, each in enumerate(tensors)}


def _tensor(message: InputTensor | OutputTensor, raw: bytes | None) -> Tensor:
    shape = tuple(message.shape)
    if message.datatype == "BF16" and raw is not None:
        # numpy has no such type; as float32 nothing is lost.
        return checked("float32", shape, b"".join(b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2)))
    dtype = DATATYPES.get(message.datatype)
    if dtype is None:
        raise ValueError("a tensor's datatype is unknown")
    return checked(dtype, shape, _typed_bytes(dtype, message.contents) if raw is None else raw)


def _typed_bytes(dtype: str, contents: wire.InferTensorContents) -> bytes:
    if dtype == "string":
        return joined(contents.bytes_contents)
    if dtype not in _FIELDS:
        raise ValueError("half floats have no typed contents")
    field, code = _FIELDS[dtype]
    values = getattr(contents, field)
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error:
        pass
    raise ValueError("a tensor's element is out of its type's range")


def joined(elements: Iterable[bytes]) -> bytes:
    """Strings as a tensor's bytes."""
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def strings(*texts: str) -> bytes:
    """The same, from texts. Raises ``ValueError`` for what is no valid Unicode."""
    return joined([text.encode() for text in texts])


def _elements(data: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def texts_of(tensor: Tensor) -> list[str]:
    """The elements of a string tensor. Raises ``ValueError`` for another."""
    if tensor.dtype != "string":
        raise ValueError("a tensor of text is not BYTES")
    return strings_in(tensor.data, math.prod(tensor.shape))


class Outputs:
    """A response's tensors, each read when it is asked for: a stream has one message a token."""

    def __init__(self, tensors: Sequence[OutputTensor], raw: Sequence[bytes]) -> None:
        if raw and len(raw) != len(tensors):
            raise ValueError(_NOT_AS_MANY)
        self._tensors = tensors
        self._raw = raw
        self._at = {each.name: at for at, each in enumerate(tensors)}

    def texts(self, name: str | None) -> list[str] | None:
        """The elements of a tensor of texts, or ``None`` where it is not there. Raises ``ValueError`` for another."""
        at = self._at.get(name or "")
        if at is None:
            return None
        tensor = self._tensors[at]
        if tensor.datatype != "BYTES":
            raise ValueError("a tensor of text is not BYTES")
        data = self._raw[at] if self._raw else joined(tensor.contents.bytes_contents)
        return strings_in(data, math.prod(tensor.shape))

    def tensor(self, name: str | None) -> Tensor | None:
        """Any tensor, or ``None`` where it is not there. Raises ``ValueError`` where it does not fit its shape."""
        at = self._at.get(name or "")
        return None if at is None else _tensor(self._tensors[at], self._raw[at] if self._raw else None)


def as_vectors(tensor: Tensor | None) -> Tensor:
    """A tensor of floats as float32 ``[n, d]``. Raises ``ValueError`` for another."""
    codes = {"float16": "e", "float32": "f", "float64": "d"}
    if tensor is None or tensor.dtype not in codes or len(tensor.shape) < 2 or 0 in tensor.shape:
        raise ValueError("embeddings are a tensor of floats, a row for each text")
    count = math.prod(tensor.shape)
    width = tensor.shape[-1]
    data = tensor.data
    if tensor.dtype != "float32":
        values = struct.unpack(f"<{count}{codes[tensor.dtype]}", data)
        data = struct.pack(f"<{count}f", *values)
    return Tensor("float32", (count // width, width), data)
