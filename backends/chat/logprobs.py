"""How likely a token was, and which others would have been. Runs in the worker."""

from __future__ import annotations

from collections.abc import Callable

import numpy

Logits = numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]
"""The unnormalised log-probabilities of all tokens."""


def logprobs(logits: Logits, token: int, top: int, text: Callable[[int], str]) -> list[object]:
    """``[text, log-probability, [[text, log-probability], …]]`` of a token and of the ``top`` likeliest, best first.

    By the model's own distribution, before temperature, top-k, top-p and format. ``text`` tells a token's.
    """
    values = logits.astype(numpy.float64)
    values -= values.max()
    values -= numpy.log(numpy.exp(values).sum())
    top = min(top, values.size)
    likeliest = numpy.argpartition(-values, top - 1)[:top] if top else numpy.empty(0, numpy.int64)
    best = sorted(likeliest.tolist(), key=lambda other: -values[other])
    return [text(token), float(values[token]), [[text(other), float(values[other])] for other in best]]
