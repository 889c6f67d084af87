"""Named tensors in a parcel: what they are in its fields, their bytes one after the other in its payload.

Each begins where numbers of any width may begin. One alone is handed over as it is, without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...core.content import Tensor
from ..process.engine import Parcel
from ..process.frames import JsonObject
from ..tensors import TensorBytes, dtype_name, is_sent_as_it_is, to_tensor

if TYPE_CHECKING:
    import numpy

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A tensor whose bytes lie in somebody else's memory."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def pack(fields: JsonObject, tensors: Mapping[str, TensorBytes]) -> Parcel:
    """A parcel of ``fields`` and the tensors."""
    described, parts, at = [], [], 0
    for name, tensor in tensors.items():
        length = len(tensor.data)
        described.append({"name": name, "dtype": tensor.dtype, "shape": tensor.shape, "at": at, "bytes": length})
        padding = -length % _ALIGNMENT
        parts += [tensor.data, bytes(padding)]
        at += length + padding
    return Parcel({**fields, "tensors": described}, parts[0] if len(parts) == 2 else b"".join(parts))


def pack_arrays(fields: JsonObject, arrays: Mapping[str, numpy.ndarray[Any, Any]]) -> Parcel:
    """The same of arrays, without copying what lies in memory as it is to be."""
    return pack(fields, {name: _piece(array) for name, array in arrays.items()})


def pieces(parcel: Parcel) -> dict[str, Piece]:
    """The tensors that `pack` put in, where they lie."""
    payload = memoryview(parcel.payload)
    return {
        each["name"]: Piece(each["dtype"], tuple(each["shape"]), payload[each["at"] : each["at"] + each["bytes"]])
        for each in parcel.fields["tensors"]
    }


def unpack(parcel: Parcel) -> dict[str, Tensor]:
    """The tensors that `pack` put in, of their own."""
    described = parcel.fields["tensors"]
    if len(described) == 1:
        (each,) = described
        return {each["name"]: Tensor(each["dtype"], tuple(each["shape"]), bytes(parcel.payload))}
    return {name: Tensor(piece.dtype, piece.shape, bytes(piece.data)) for name, piece in pieces(parcel).items()}


def _piece(array: numpy.ndarray[Any, Any]) -> TensorBytes:
    if not (is_sent_as_it_is(array.dtype) and array.flags.c_contiguous and array.size):
        return to_tensor(array)
    return Piece(dtype_name(array.dtype), array.shape, array.reshape(-1).view("uint8").data)
