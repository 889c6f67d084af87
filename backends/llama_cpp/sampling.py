"""How the next token is chosen, and how likely it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy

from ...core.failure import AttemptError, FailureKind
from ..process.frames import JsonObject
from .grammar import grammar_of
from .native import Context, require_number

_Pointer = Any  # a ctypes pointer to llama_sampler; llama_cpp has no types

_RANDOM = llama_cpp.LLAMA_DEFAULT_SEED


class Sampler:
    """A chain of llama.cpp's samplers for one call. Make it with `sampler`, which frees it."""

    def __init__(self, chain: _Pointer, context: Context) -> None:
        self._chain = chain
        self._context = context

    def next(self) -> int:
        """The next token, by the last `Context.append`. Raises INTERNAL where the model computes no numbers."""
        token = int(llama_cpp.llama_sampler_sample(self._chain, self._context.handle, -1))
        require_number(self._context.logit(token))
        return token


@contextmanager
def sampler(context: Context, call: JsonObject, top_k: int) -> Iterator[Sampler]:
    """The chain that a call asks for: its grammar, then greedy at temperature 0, else top-k, top-p, temperature."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    try:
        if call["response_format"] is not None:
            llama_cpp.llama_sampler_chain_add(chain, _grammar(context, grammar_of(call["response_format"])))
        if call["temperature"] <= 0.0:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
        else:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_k(top_k))
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_p(call["top_p"], 1))
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_temp(call["temperature"]))
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_dist(_seed(call["seed"])))
        yield Sampler(chain, context)
    finally:
        llama_cpp.llama_sampler_free(chain)


def logprobs(context: Context, token: int, top: int) -> list[object]:
    """``[text, log-probability, [[text, log-probability], …]]`` of a token and of the ``top`` likeliest, best first.

    By the model's own distribution, before temperature, top-k, top-p and grammar.
    """
    logits = context.logits().astype(numpy.float64)
    logits -= logits.max()
    values = logits - numpy.log(numpy.exp(logits).sum())
    top = min(top, values.size)
    likeliest = numpy.argpartition(-values, top - 1)[:top] if top else numpy.empty(0, numpy.int64)
    best = sorted(likeliest.tolist(), key=lambda other: -values[other])
    others = [[_text(context, other), float(values[other])] for other in best]
    return [_text(context, token), float(values[token]), others]


def _text(context: Context, token: int) -> str:
    return context.vocabulary.piece(token).decode("utf-8", "replace")


def _seed(seed: int | None) -> int:
    if seed is None:
        return int(_RANDOM)
    # The last value of 32 bits means 'random' to llama.cpp.
    return seed % int(_RANDOM)


def _grammar(context: Context, grammar: bytes) -> _Pointer:
    made = llama_cpp.llama_sampler_init_grammar(context.vocabulary.handle, grammar, b"root")
    if not made:
        sentence = "the response format's grammar cannot be read; GBNF needs a rule `root` and no left recursion"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    return made
