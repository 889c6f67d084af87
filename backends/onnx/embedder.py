"""Texts to vectors. Runs in the worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from ..process.engine import RunningCall
from .session import Array
from .settings import Pooling
from .texts import Outcome, TextModel

_TINY = 1e-12


class Embedder:
    """A model whose output is pooled to one vector a text."""

    def __init__(self, model: TextModel, *, pooling: Pooling, normalize: bool) -> None:
        self._model = model
        self._pooling = pooling
        self._normalize = normalize
        rank, each = (2, "text") if pooling is Pooling.NONE else (3, "token")
        self._output, self.dimension = model.find_output(rank, f"one vector a {each}, see `pooling`")

    def embed(self, texts: Sequence[str], running: RunningCall) -> tuple[Array, int]:
        """float32 ``[n, d]`` in the order given, and how many tokens the texts had together."""
        tokens = self._model.tokenize(texts, running)
        vectors = numpy.empty((len(texts), self.dimension), dtype=numpy.float32)
        for outcome in self._model.run(tokens, self._output, running):
            pooled = self._pool(outcome)
            if self._normalize:
                pooled = pooled / numpy.maximum(numpy.linalg.norm(pooled, axis=1, keepdims=True), _TINY)
            vectors[outcome.rows] = pooled
        return vectors, sum(len(text.ids) for text in tokens)

    def _pool(self, outcome: Outcome) -> Array:
        match self._pooling:
            case Pooling.MEAN:
                weights = outcome.mask.astype(numpy.float32)[:, :, None]
                total = (outcome.output * weights).sum(axis=1)
                mean: Array = total / numpy.maximum(weights.sum(axis=1), _TINY)
                return mean
            case Pooling.CLS:
                return outcome.output[:, 0]
            case Pooling.NONE:
                return outcome.output
