"""A model's named inputs and outputs, and whether a request's tensors fit them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...core.failure import AttemptError, FailureKind
from ..tensors import TensorBytes

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(string)": "string",
}
"""ONNX Runtime's names of the types that a `Tensor` can have, and ours."""


class NodeArgument(Protocol):
    """An input or output as ONNX Runtime describes it. An axis is a number, a name, or None."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str | None]: ...


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model. A dynamic axis is None, or the name under which it has one extent everywhere.

    Without a shape it may have any, and any number of axes.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    @classmethod
    def of(cls, argument: NodeArgument, scalars: Container[str]) -> Port | None:
        """The port, or None for what is not a dense tensor (a map, a sequence, …). ``scalars`` are names."""
        dtype = _DTYPES.get(argument.type)
        if dtype is None:
            return None
        known = argument.shape or argument.name in scalars
        return cls(argument.name, dtype, tuple(map(_axis, argument.shape)) if known else None)

    def described(self) -> list[str | list[int | None]]:
        """Name, type and shape, as JSON has them: the fields of a `TensorSpec`, which tells no rank as none."""
        return [self.name, self.dtype, [axis if isinstance(axis, int) else None for axis in self.shape or ()]]

    @property
    def has_rows(self) -> bool:
        """Whether its first axis may have any extent."""
        return self.shape is not None and bool(self.shape) and not isinstance(self.shape[0], int)

    def accepts_shape(self, shape: Sequence[int]) -> bool:
        """Whether every fixed axis has its extent."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            mine == theirs for mine, theirs in zip(self.shape, shape, strict=True) if isinstance(mine, int)
        )

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        axes = ", ".join(str(axis) if isinstance(axis, int) else "any" for axis in self.shape)
        return f"{self.dtype} [{axes}]"


def check_inputs(model: str, ports: Sequence[Port], tensors: Mapping[str, TensorBytes]) -> None:
    """Raise INVALID_REQUEST with every name, type and shape that does not fit. Looks at no values."""
    wanted = {port.name: port for port in ports}
    mistakes = [f"{name!r} is missing, it is {port}" for name, port in wanted.items() if name not in tensors]
    for name, tensor in tensors.items():
        port = wanted.get(name)
        if port is None:
            mistakes.append(f"{name!r} is none of its inputs, they are {', '.join(map(repr, wanted))}")
        elif tensor.dtype != port.dtype or not port.accepts_shape(tensor.shape):
            mistakes.append(f"{name!r} is {tensor.dtype} {list(tensor.shape)} and must be {port}")
    if mistakes := mistakes or _disagreements(ports, tensors):
        sentence = f"the input tensors do not fit model {model!r}: {'; '.join(mistakes)}"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)


def _disagreements(ports: Sequence[Port], tensors: Mapping[str, TensorBytes]) -> list[str]:
    """Where an axis of one name has two extents. ONNX Runtime plans its memory as if that could not be."""
    first: dict[str, tuple[int, str]] = {}
    mistakes = []
    for port in ports:
        for axis, extent in zip(port.shape or (), tensors[port.name].shape, strict=False):
            if not isinstance(axis, str):
                continue
            wanted, other = first.setdefault(axis, (extent, port.name))
            if extent != wanted:
                mistakes.append(f"the axis {axis!r} is {wanted} long in {other!r} and {extent} in {port.name!r}")
    return mistakes


def _axis(axis: int | str | None) -> int | str | None:
    return None if axis == "" or (isinstance(axis, int) and axis < 0) else axis
