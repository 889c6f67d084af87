"""A grammar at work: which token may come next, by what the answer says so far."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy

from ...core.failure import AttemptError, FailureKind
from ..chat.logprobs import Logits
from .vocabulary import Vocabulary

_Pointer = Any  # a ctypes pointer to llama_sampler; llama_cpp has no types

_CANDIDATE = numpy.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


class Candidates:
    """Tokens with their logits, as llama.cpp's samplers take, weigh and order them."""

    def __init__(self, tokens: numpy.ndarray[tuple[int], numpy.dtype[numpy.int32]], logits: Logits) -> None:
        self._data = numpy.zeros(len(tokens), _CANDIDATE)
        self._data["id"] = tokens
        self._data["logit"] = logits
        pointer = self._data.ctypes.data_as(llama_cpp.llama_token_data_p)
        self._array = llama_cpp.llama_token_data_array(pointer, len(tokens), -1, False)

    def apply(self, sampler: _Pointer) -> None:
        """Have a sampler at them."""
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(self._array))

    @property
    def best(self) -> float:
        """The highest logit; minus infinity where none is possible."""
        return float(self._data["logit"].max())

    @property
    def likeliest(self) -> int:
        """The token with the highest logit."""
        return int(self._data["id"][numpy.argmax(self._data["logit"])])

    @property
    def selected(self) -> int:
        """The token that the last sampler has chosen."""
        return int(self._data["id"][self._array.selected])


class Constraint:
    """One answer's grammar, and how far the answer has come in it. Make it with `constraint`, which frees it.

    llama.cpp ends the process over a token that its grammar does not permit, so that each is asked for before.
    """

    def __init__(self, sampler: _Pointer, vocabulary: Vocabulary) -> None:
        self._sampler = sampler
        self._vocabulary = vocabulary
        self._all = numpy.arange(vocabulary.size, dtype=numpy.int32)

    def permits(self, token: int) -> bool:
        """Whether this may be the next token."""
        one = Candidates(numpy.array([token], numpy.int32), numpy.zeros(1, numpy.float32))
        one.apply(self._sampler)
        return one.best == 0.0

    def permitted(self, logits: Logits) -> Candidates:
        """All tokens, with minus infinity for those that may not be next. Raises INVALID_REQUEST where none may."""
        candidates = Candidates(self._all, logits)
        candidates.apply(self._sampler)
        if candidates.best == -numpy.inf:
            sentence = "the response format leads to where no text of this model can go on; simplify it"
            raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
        return candidates

    def advance(self, token: int) -> None:
        """Go on by a token that is permitted."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def rewind(self) -> None:
        """Go back to the beginning of the answer."""
        llama_cpp.llama_sampler_reset(self._sampler)

    def follow(self, text: str) -> None:
        """Go back to the beginning and on by a text. Raises INVALID_REQUEST where the grammar permits no such text.

        By the tokens of single bytes, because tokenisers may put a space before a text.
        """
        self.rewind()
        for byte in text.encode():
            token = self._vocabulary.byte_tokens.get(byte)
            if token is None or not self.permits(token):
                sentence = "the answer that is to be continued does not follow the response format"
                raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
            self.advance(token)


@contextmanager
def constraint(vocabulary: Vocabulary, grammar: bytes) -> Iterator[Constraint]:
    """A grammar in GBNF at its beginning. Raises INVALID_REQUEST for one that cannot be read."""
    sampler = llama_cpp.llama_sampler_init_grammar(vocabulary.handle, grammar, b"root")
    if not sampler:
        sentence = "the response format's grammar cannot be read; GBNF needs a rule `root` and no left recursion"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    try:
        yield Constraint(sampler, vocabulary)
    finally:
        llama_cpp.llama_sampler_free(sampler)
