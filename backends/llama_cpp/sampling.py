"""How the next token is chosen, and how likely it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import llama_cpp
import numpy

from ..chat.logprobs import logprobs as logprobs_of
from ..process.frames import JsonObject
from .constraint import Constraint, constraint
from .grammar import grammar_of
from .native import Context, require_number

_Pointer = Any  # a ctypes pointer to llama_sampler; llama_cpp has no types

_RANDOM = llama_cpp.LLAMA_DEFAULT_SEED


class Sampler:
    """Chooses one answer's tokens among those that its constraint permits. Make it with `sampler`.

    By a chain of llama.cpp's samplers; without one always the likeliest.
    """

    def __init__(self, context: Context, constrained: Constraint | None, chain: _Pointer | None) -> None:
        self._context = context
        self._constraint = constrained
        self._chain = chain

    def next(self) -> int:
        """The next token, by what the context has read. Raises INTERNAL where the model computes no numbers."""
        token = self.likeliest() if self._chain is None else self._drawn(self._chain)
        require_number(self._context.logit(token))
        self.advance(token)
        return token

    def _drawn(self, chain: _Pointer) -> int:
        if self._constraint is None:
            return int(llama_cpp.llama_sampler_sample(chain, self._context.handle, -1))
        candidates = self._constraint.permitted(self._context.logits())
        candidates.apply(chain)
        return candidates.selected

    def likeliest(self, at: int = -1) -> int:
        """The likeliest next token that is permitted; ``at`` counts within the last `Context.predict`."""
        logits = self._context.logits(at)
        token = int(numpy.argmax(logits))
        if self._constraint is None or self._constraint.permits(token):
            return token
        return self._constraint.permitted(logits).likeliest

    def rewind(self) -> None:
        """Go back to the beginning of the answer."""
        if self._constraint is not None:
            self._constraint.rewind()

    def advance(self, token: int) -> None:
        """Take a token into the answer that `likeliest` named."""
        if self._constraint is not None:
            self._constraint.advance(token)

    def follow(self, text: str) -> None:
        """Go on from the end of a text. Raises INVALID_REQUEST where the constraint permits no answer like it."""
        if self._constraint is not None:
            self._constraint.follow(text)


@contextmanager
def sampler(context: Context, call: JsonObject, top_k: int) -> Iterator[Sampler]:
    """What a call asks for: greedy at temperature 0, else top-k, top-p, temperature; within its response format."""
    with ExitStack() as owned:
        constrained = chain = None
        if call["response_format"] is not None:
            grammar = grammar_of(call["response_format"])
            constrained = owned.enter_context(constraint(context.vocabulary, grammar))
        if call["temperature"] > 0.0:
            chain = _chain(call, top_k)
            owned.callback(llama_cpp.llama_sampler_free, chain)
        yield Sampler(context, constrained, chain)


def _chain(call: JsonObject, top_k: int) -> _Pointer:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_k(top_k))
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_p(call["top_p"], 1))
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_temp(call["temperature"]))
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_dist(_seed(call["seed"])))
    return chain


def logprobs(context: Context, token: int, top: int) -> list[object]:
    """As `chat.logprobs`, of the token that comes next by what the context has read."""
    return logprobs_of(context.logits(), token, top, lambda other: _text(context, other))


def _text(context: Context, token: int) -> str:
    return context.vocabulary.piece(token).decode("utf-8", "replace")


def _seed(seed: int | None) -> int:
    if seed is None:
        return int(_RANDOM)
    # The last value of 32 bits means 'random' to llama.cpp.
    return seed % int(_RANDOM)
