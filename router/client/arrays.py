"""Arrays that know which backend they came from."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy

from ...backends.tensors import to_array, to_tensor
from ...core.answer import Embeddings, Inference, Usage
from ...core.content import Tensor
from ...core.decision import Decision
from ...core.errors import InvalidRequest


class Vectors(numpy.ndarray):
    """Embeddings: a float32 array ``[n, d]``, of the request's data class, that knows where it came from.

    Arrays made from it (slices, sums) are of this type too and know nothing.
    """

    backend: str | None
    usage: Usage | None
    model: str | None
    cost: float | None
    decision: Decision | None

    @classmethod
    def of(cls, answer: Embeddings, cost: float | None, decision: Decision) -> Vectors:
        """The array of an answer. ``cost`` is in US dollars, ``None`` where no price is configured."""
        vectors = to_array(answer.vectors).view(cls)
        vectors.backend = decision.answered_by
        vectors.usage = answer.usage
        vectors.model = answer.model
        vectors.cost = cost
        vectors.decision = decision
        return vectors

    def __array_finalize__(self, source: object) -> None:
        self.backend = self.usage = self.model = self.cost = self.decision = None


class Tensors(dict[str, numpy.ndarray]):
    """Named output tensors, of the request's data class, that know where they came from. ``repr`` shows names only."""

    def __init__(self, answer: Inference, decision: Decision) -> None:
        super().__init__({name: to_array(tensor) for name, tensor in answer.outputs.items()})
        self.backend = decision.answered_by
        self.model = answer.model
        self.decision = decision

    def __repr__(self) -> str:
        return f"Tensors({', '.join(self)})"


_SMALL_BYTES = 2 << 20
"""Copied in less than a millisecond, however they lie in memory; a thread that does it costs a fifth of one."""


def are_small_arrays(inputs: object) -> bool:
    """Whether `tensors_of` takes no time to speak of."""
    if not isinstance(inputs, Mapping):
        return True
    arrays = [each for each in inputs.values() if isinstance(each, numpy.ndarray) and each.dtype != object]
    return len(arrays) == len(inputs) and sum(each.nbytes for each in arrays) <= _SMALL_BYTES


def tensors_of(inputs: Mapping[str, object]) -> dict[str, Tensor]:
    """Arrays, or what numpy makes arrays of, as tensors. Raises `InvalidRequest`."""
    if not isinstance(inputs, Mapping) or not inputs:
        raise InvalidRequest("infer wants named tensors, like {'features': array}")
    if not all(isinstance(name, str) and name for name in inputs):
        raise InvalidRequest("a tensor's name is not a text; name the tensors as the model does")
    return {name: to_tensor(_array(name, value), name=name) for name, value in inputs.items()}


def _array(name: str, value: object) -> numpy.ndarray:
    # Importing it takes 25 ms, and nobody has such an array without.
    if "numpy.ma" in sys.modules and numpy.ma.is_masked(value):
        raise InvalidRequest(f"tensor {name!r} has masked elements, and no model takes a mask; fill them: `filled(0)`")
    try:
        return numpy.asarray(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidRequest(f"tensor {name!r} is nothing that numpy makes an array of; are its rows of one length?")
