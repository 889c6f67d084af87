"""Tensors as numpy arrays and back: the one place that knows how a `Tensor`'s bytes are laid out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from ..core.content import Tensor
from ..core.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy

STRING = "string"


class TensorBytes(Protocol):
    """A `Tensor`, or what is laid out like one in memory that belongs to somebody else."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def data(self) -> bytes | memoryview: ...


ITEM_BYTES = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
}
"""The element types a `Tensor` may have, besides `STRING`, and the bytes one element takes."""

_LENGTH_BYTES = 4
_LONGEST_STRING = (1 << 32) - 1


@lru_cache(64)
def dtype_name(dtype: numpy.dtype[Any]) -> str:
    """What numpy calls an element type; it puts the name together anew each time."""
    return str(dtype.name)


@lru_cache(64)
def is_sent_as_it_is(dtype: numpy.dtype[Any]) -> bool:
    """Whether a `Tensor` has its elements as numpy has them in memory."""
    return dtype.name in ITEM_BYTES and dtype == dtype.newbyteorder("<")


def to_tensor(array: numpy.ndarray[Any, Any], *, name: str = "") -> Tensor:
    """A numpy array as a `Tensor`, of any memory layout and byte order.

    Arrays of ``str`` become ``string`` tensors, also as numpy objects. ``name`` goes into error texts, values never do.
    Raises `InvalidRequest` for element types that a `Tensor` cannot have.
    """
    kind = array.dtype.kind
    if kind in "UTO":
        return Tensor(STRING, array.shape, b"".join(_encoded(array.flat, name)))
    if (dtype := dtype_name(array.dtype)) not in ITEM_BYTES:
        raise InvalidRequest(f"{_subject(name)} has elements of type {array.dtype}, which cannot be sent; {_LEGAL}")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return Tensor(dtype, array.shape, little.tobytes())


def to_array(tensor: Tensor, *, name: str = "") -> numpy.ndarray[Any, Any]:
    """A `Tensor` as a numpy array of its shape: writable, its own copy; ``string`` becomes an array of ``str`` objects.

    ``name`` goes into error texts, values never do. Raises `InvalidRequest` where type, shape and bytes do not
    belong together.
    """
    array = array_over(tensor, name=name)
    return array if tensor.dtype == STRING else array.copy()


def array_over(tensor: TensorBytes, *, name: str = "") -> numpy.ndarray[Any, Any]:
    """The same without a copy where the elements are numbers: it lives no longer than the bytes, and is not to be
    written to."""
    import numpy

    elements = _checked_count(tensor, name)
    if tensor.dtype == STRING:
        array: numpy.ndarray[Any, Any] = numpy.empty(elements, dtype=object)
        for index, text in enumerate(_decoded(bytes(tensor.data), elements, name)):
            array[index] = text
    else:
        array = numpy.frombuffer(tensor.data, dtype=numpy.dtype(tensor.dtype).newbyteorder("<"))
        if tensor.dtype == "bool" and array.view(numpy.uint8).max(initial=0) > 1:
            raise InvalidRequest(
                f"{_subject(name)} has a bool that is neither 0 nor 1; send one byte, 0 or 1, for each"
            )
    try:
        return array.reshape(tensor.shape)
    except ValueError:
        raise InvalidRequest(f"{_subject(name)} has a shape that numpy cannot hold: {list(tensor.shape)}") from None


def _checked_count(tensor: TensorBytes, name: str) -> int:
    """How many elements the shape holds, after checking type, shape and (where it is fixed) the number of bytes."""
    if tensor.dtype != STRING and tensor.dtype not in ITEM_BYTES:
        raise InvalidRequest(f"{_subject(name)} has an unknown element type; {_LEGAL}")
    if any(extent < 0 for extent in tensor.shape):
        raise InvalidRequest(f"{_subject(name)} has a negative extent in its shape {list(tensor.shape)}")
    elements = math.prod(tensor.shape)
    if tensor.dtype == STRING:
        # Every string has a length; checked before as many elements are laid out.
        if len(tensor.data) < elements * _LENGTH_BYTES:
            raise _wrong_strings(name, elements)
    elif len(tensor.data) != elements * ITEM_BYTES[tensor.dtype]:
        raise InvalidRequest(
            f"{_subject(name)} is {tensor.dtype} {list(tensor.shape)} and needs "
            f"{elements * ITEM_BYTES[tensor.dtype]} bytes, but has {len(tensor.data)}"
        )
    return elements


def _utf8(text: str) -> bytes | None:
    """The text's bytes; ``None`` for a lone surrogate. An error raised from here would carry the text with it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _encoded(texts: Iterable[object], name: str) -> Iterator[bytes]:
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{_subject(name)} holds Python objects that are not str ({type(text).__name__}); {_LEGAL}"
            )
        encoded = _utf8(text)
        if encoded is None:
            raise InvalidRequest(f"{_subject(name)} has a string that is not valid Unicode (a lone surrogate)")
        if len(encoded) > _LONGEST_STRING:
            raise InvalidRequest(f"{_subject(name)} has a string of more than {_LONGEST_STRING} bytes")
        yield len(encoded).to_bytes(_LENGTH_BYTES, "little")
        yield encoded


def string_ends(data: bytes, elements: int) -> list[int] | None:
    """Where each string of a ``string`` tensor's bytes ends; None where they do not hold so many strings."""
    ends, at = [], 0
    # Every string has a length; looked at before as many are counted.
    for _ in range(elements if elements * _LENGTH_BYTES <= len(data) else 0):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            return None
        ends.append(at)
    return ends if at == len(data) and len(ends) == elements else None


def _decoded(data: bytes, elements: int, name: str) -> Iterator[str]:
    ends = string_ends(data, elements)
    if ends is None:
        raise _wrong_strings(name, elements)
    at = 0
    for end in ends:
        try:
            yield data[at + _LENGTH_BYTES : end].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{_subject(name)} has a string that is not valid UTF-8") from None
        at = end


def _wrong_strings(name: str, elements: int) -> InvalidRequest:
    return InvalidRequest(
        f"{_subject(name)} does not hold the {elements} strings of its shape: "
        "each is a 4-byte little-endian length and that many bytes"
    )


def _subject(name: str) -> str:
    return f"tensor {name!r}" if name else "the tensor"


_LEGAL = f"use one of {', '.join(ITEM_BYTES)}, or str"
