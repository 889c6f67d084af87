"""Texts to the scores of labels. Runs in the worker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from ..process.engine import RunningCall
from .session import Array
from .settings import Scores
from .texts import TextModel
from .unavailable import unavailable


class Classifier:
    """A model with one number a label, made a score."""

    def __init__(self, model: TextModel, *, labels: int, scores: Scores) -> None:
        self._model = model
        self._scores = scores
        self._output, self._labels = model.find_output(2, "one number a label")
        if self._labels != labels:
            why = f"it tells {self._labels} classes apart, and `labels` has {labels} names"
            raise unavailable(model.name, why)

    def classify(self, texts: Sequence[str], running: RunningCall) -> tuple[Array, int]:
        """float32 ``[n, labels]`` in the order given, and how many tokens the texts had together."""
        tokens = self._model.tokenize(texts, running)
        scores = numpy.empty((len(texts), self._labels), dtype=numpy.float32)
        for outcome in self._model.run(tokens, self._output, running):
            scores[outcome.rows] = self._score(outcome.output)
        return scores, sum(len(text.ids) for text in tokens)

    def _score(self, output: Array) -> Array:
        match self._scores:
            case Scores.SOFTMAX:
                powers = numpy.exp(output - output.max(axis=1, keepdims=True))
                shares: Array = powers / powers.sum(axis=1, keepdims=True)
                return shares
            case Scores.SIGMOID:
                # The same as 1 / (1 + exp(-x)), and overflows nowhere.
                halves: Array = 0.5 * (1.0 + numpy.tanh(0.5 * output))
                return halves
            case Scores.NONE:
                return output
