"""A model's named inputs and outputs, and whether a request's tensors fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """An input or output of a model. A dynamic axis is None.

    An empty shape says nothing: ONNX Runtime describes a scalar and a tensor of unknown rank alike.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, argument: NodeArgument) -> Port | None:
        """The port, or None for what is not a dense tensor (a map, a sequence, …)."""
        dtype = _DTYPES.get(argument.type)
        if dtype is None:
            return None
        axes = (axis if isinstance(axis, int) and axis >= 0 else None for axis in argument.shape)
        return cls(argument.name, dtype, tuple(axes))

    def described(self) -> list[str | list[int | None]]:
        """Name, type and shape, as JSON has them: the fields of a `TensorSpec`."""
        return [self.name, self.dtype, list(self.shape)]

    @property
    def has_rows(self) -> bool:
        """Whether its first axis may have any extent."""
        return self.shape[:1] == (None,)

    def accepts_shape(self, shape: Sequence[int]) -> bool:
        """Whether every fixed axis has its extent."""
        if not self.shape:
            return True
        return len(shape) == len(self.shape) and all(
            mine is None or mine == theirs for mine, theirs in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        axes = ", ".join("any" if axis is None else str(axis) for axis in self.shape)
        return f"{self.dtype} [{axes}]" if self.shape else f"{self.dtype} of any shape"


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
    if mistakes:
        sentence = f"the input tensors do not fit model {model!r}: {'; '.join(mistakes)}"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
