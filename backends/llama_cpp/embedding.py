"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from ...core.failure import AttemptError, FailureKind
from ..process.engine import Events, Parcel, RunningCall
from .native import Context, require_number

_TINY = 1e-12


def embed(context: Context, texts: Sequence[str], running: RunningCall, *, normalize: bool) -> Events:
    """One event: ``shape`` and ``prompt_tokens``, and as its payload float32 ``[n, d]``; none once cancelled.

    Raises CONTEXT_LENGTH, before any work, for a text that does not fit: none is cut.
    """
    yield from ()
    prompts = [_tokens(context, text, index) for index, text in enumerate(texts)]
    rows = []
    for prompt in prompts:
        row = None if running.cancelled else context.embed(prompt)
        if row is None:
            return None
        require_number(float(row.sum()))
        rows.append(row / max(float(numpy.linalg.norm(row)), _TINY) if normalize else row)
    vectors = numpy.array(rows, dtype="<f4").reshape(len(rows), -1)
    fields = {"shape": list(vectors.shape), "prompt_tokens": sum(map(len, prompts))}
    return Parcel(fields, vectors.tobytes())


def _tokens(context: Context, text: str, index: int) -> list[int]:
    tokens = context.vocabulary.tokenise(text, control=False, framed=True)
    if len(tokens) > context.size:
        sentence = f"text {index} has {len(tokens)} tokens, and {context.size} are the most"
        raise AttemptError(FailureKind.CONTEXT_LENGTH, sentence)
    if not tokens:
        raise AttemptError(FailureKind.INVALID_REQUEST, f"text {index} has no tokens, and so no vector")
    return tokens
