"""Named tensors in a parcel: what they are in its fields, their bytes one after the other in its payload."""

from __future__ import annotations

from collections.abc import Mapping

from ...core.content import Tensor
from ..process.engine import Parcel
from ..process.frames import JsonObject


def pack(fields: JsonObject, tensors: Mapping[str, Tensor]) -> Parcel:
    """A parcel of ``fields`` and the tensors."""
    described = [
        {"name": name, "dtype": tensor.dtype, "shape": tensor.shape, "bytes": len(tensor.data)}
        for name, tensor in tensors.items()
    ]
    return Parcel({**fields, "tensors": described}, b"".join(tensor.data for tensor in tensors.values()))


def unpack(parcel: Parcel) -> dict[str, Tensor]:
    """The tensors that `pack` put in."""
    tensors = {}
    start = 0
    for described in parcel.fields["tensors"]:
        end = start + described["bytes"]
        tensors[described["name"]] = Tensor(described["dtype"], tuple(described["shape"]), parcel.payload[start:end])
        start = end
    return tensors
