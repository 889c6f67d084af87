"""Answers that keep to a response format of JSON, by llguidance. Runs in the worker.

A guide says after each token which ones may come next, so that the answer is of the format whatever the model would
rather say. llguidance keeps a schema whole or refuses it; what it takes too long for is refused before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ...core.failure import AttemptError, FailureKind
from ..chat.json_schema import said_by
from ..chat.logprobs import Logits
from .vocabulary import TokenizerVocabulary

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_OPTIONS: JsonCompileOptions = {
    # On one line or on many, and not for ever.
    "whitespace_pattern": r" |\n[ \t]{0,20}",
    # Not to be set by a schema: it would no longer be kept whole.
    "lenient": False,
    "coerce_one_of": False,
}
_LIMITS = LLParserLimits(verbose_errors=False)
_LONGEST = 1 << 18
_LARGEST_MULTIPLE = 100
_KEYWORDS = frozenset(
    {
        *("$anchor", "$dynamicRef", "$recursiveRef", "$ref", "allOf", "anyOf", "const", "contains", "dependencies"),
        *("dependentRequired", "dependentSchemas", "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "format"),
        *("if", "items", "maxContains", "maximum", "maxItems", "maxLength", "maxProperties", "minContains", "minimum"),
        *("minItems", "minLength", "minProperties", "multipleOf", "not", "oneOf", "pattern", "patternProperties"),
        *("prefixItems", "properties", "propertyNames", "required", "then", "type", "unevaluatedItems"),
        *("unevaluatedProperties", "uniqueItems"),
    }
)
"""JSON Schema's own words, the only ones of a schema that an error text may repeat."""


class Guides:
    """Makes guides for one vocabulary of ``size`` tokens, of which ``ends`` end a turn.

    It is prepared when the first is wanted: some 0.4 s for 50,000 tokens.
    """

    def __init__(self, vocabulary: TokenizerVocabulary, size: int, ends: Set[int]) -> None:
        self._vocabulary = vocabulary
        self._size = max(size, vocabulary.size)
        self._ends = ends

    def guide(self, response_format: Mapping[str, Any], begun: Sequence[int]) -> Guide:
        """A guide for one answer, of which these tokens have been said. Raises INVALID_REQUEST."""
        schema = _schema_of(response_format)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)
        except ValueError as error:
            raise _refused(str(error)) from None
        return Guide(LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS), begun)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        ends = sorted(end for end in self._ends if 0 <= end < self._size)
        return LLTokenizer(self._vocabulary.tokenizer.to_str(), n_vocab=self._size, eos_token=ends)


class Guide:
    """What one answer may go on with, token by token."""

    def __init__(self, matcher: LLMatcher, begun: Sequence[int]) -> None:
        self._matcher = matcher
        if matcher.is_error():
            raise _refused(matcher.get_error())
        if matcher.try_consume_tokens(list(begun)) < len(begun):
            sentence = "the answer that has begun is not of its response_format; begin another"
            raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
        self._allowed = self._look()

    @property
    def complete(self) -> bool:
        """Whether nothing more can come."""
        return self._matcher.is_stopped()

    def narrowed(self, logits: Logits) -> Logits:
        """The same, with no chance for the tokens that may not come next."""
        allowed = numpy.unpackbits(numpy.frombuffer(self._allowed, numpy.uint8), bitorder="little")[: logits.size]
        narrowed = numpy.full_like(logits, -numpy.inf)
        numpy.copyto(narrowed[: allowed.size], logits[: allowed.size], where=allowed.view(numpy.bool_))
        return narrowed

    def take(self, token: int) -> None:
        """The answer goes on with this one. Raises INVALID_REQUEST where the format gets too large on the way."""
        self._matcher.consume_token(token)
        self._allowed = self._look()

    def _look(self) -> bytes:
        allowed = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise _refused("")
        return allowed


def _schema_of(response_format: Mapping[str, Any]) -> str:
    """The JSON Schema that a format stands for, as JSON."""
    match response_format.get("type"):
        case "json_object":
            schema: object = {"type": "object"}
        case "json_schema":
            schema = response_format.get("schema")
        case _:
            sentence = "this engine keeps to json_object and json_schema (with `schema`) alone"
            raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    if not isinstance(schema, dict):
        raise AttemptError(FailureKind.INVALID_REQUEST, "response_format's schema is not a JSON object")
    steps = [step for step in said_by("multipleOf", schema) if isinstance(step, int | float)]
    if any(not isinstance(step, int) or not 0 < step <= _LARGEST_MULTIPLE for step in steps):
        # Each remainder is a state of the automaton: a large number takes minutes.
        sentence = f"response_format's schema has a `multipleOf` that is no whole number up to {_LARGEST_MULTIPLE}"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    try:
        text = json.dumps(schema)
    except RecursionError:
        raise _refused("") from None
    if len(text) > _LONGEST:
        sentence = f"response_format's schema has {len(text):,} bytes, and {_LONGEST:,} are the most; simplify it"
        raise AttemptError(FailureKind.INVALID_REQUEST, sentence)
    return text


def _refused(why: str) -> AttemptError:
    """INVALID_REQUEST. Of the library's reason, which quotes the schema, only JSON Schema's own words are said."""
    named = [word for word in sorted(_KEYWORDS) if f'"{word}"' in why or f"'{word}'" in why]
    about = f" (see {', '.join(map('`{}`'.format, named))})" if named else ""
    sentence = f"response_format's schema{about} fits no value, or asks for what cannot be kept to; simplify it"
    return AttemptError(FailureKind.INVALID_REQUEST, sentence)
