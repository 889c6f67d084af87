"""Texts as the inputs of a model that reads tokens: limits, batches, padding. Runs in the worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy

from ...core.failure import AttemptError, FailureKind
from ..process.engine import RunningCall
from .session import Array, Session, options_for
from .signature import Port
from .tokenizer_file import read_tokenizer
from .unavailable import unavailable

# Larger batches are no faster on a processor (measured with MiniLM: 4 to 32 alike), hold more memory, and stop later.
_BATCH = 8
_DEFAULT_MAX_TOKENS = 256
_INPUTS = _IDS, _MASK, _TYPES, _POSITIONS = "input_ids", "attention_mask", "token_type_ids", "position_ids"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text's tokens, padding not among them."""

    ids: Sequence[int]
    type_ids: Sequence[int]


class TextTokenizer:
    """A tokenizer.json as what texts are read with."""

    def __init__(self, name: str, path: str) -> None:
        file = read_tokenizer(name, path)
        self._tokenizer, self.pad_id, self.limit = file.tokenizer, file.pad_id, file.limit

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of every text, special tokens included."""
        return [Tokens(encoding.ids, encoding.type_ids) for encoding in self._tokenizer.encode_batch(list(texts))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model made of some texts. ``rows`` says which; ``mask`` is 1 where a token is no padding."""

    rows: list[int]
    output: Array
    mask: Array


class TextModel:
    """A model that reads texts, and its tokenizer, proven to work together by one run of the greatest length.

    Raises MODEL_UNAVAILABLE when they do not.
    """

    def __init__(self, name: str, session: Session, tokenizer: TextTokenizer, max_tokens: int | None) -> None:
        self.name = name
        self._session = session
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens or tokenizer.limit or _DEFAULT_MAX_TOKENS
        self._check_inputs()

    def find_output(self, rank: int, wanted: str) -> tuple[Port, int]:
        """The first output of floats with so many axes, and the length of the last. ``wanted`` says what it is."""
        feeds, _ = self._feeds([Tokens([self._tokenizer.pad_id] * self.max_tokens, [0] * self.max_tokens)])
        try:
            arrays = self._session.run(feeds, options_for(None), outputs=self._session.outputs)
        except AttemptError:
            raise unavailable(self.name, f"it does not take {self.max_tokens} tokens; lower `max_tokens`") from None
        for port, array in zip(self._session.outputs, arrays, strict=True):
            if array.ndim == rank and array.dtype.kind == "f":
                return port, array.shape[-1]
        raise unavailable(self.name, f"none of its outputs has {wanted}; they are {_names(self._session.outputs)}")

    def tokenize(self, texts: Sequence[str], running: RunningCall) -> list[Tokens]:
        """The tokens of all texts. Raises CONTEXT_LENGTH for one beyond ``max_tokens``: none is cut."""
        tokens: list[Tokens] = []
        for batch in _batches(range(len(texts))):
            if running.cancelled:
                raise AttemptError(FailureKind.PREEMPTED, f"the run of model {self.name!r} was cancelled")
            for index, text in zip(batch, self._tokenizer([texts[index] for index in batch]), strict=True):
                if len(text.ids) > self.max_tokens:
                    sentence = f"text {index} has {len(text.ids)} tokens, and {self.max_tokens} are the most"
                    raise AttemptError(FailureKind.CONTEXT_LENGTH, f"{sentence} for model {self.name!r}")
                tokens.append(text)
        return tokens

    def run(self, tokens: Sequence[Tokens], output: Port, running: RunningCall) -> Iterator[Outcome]:
        """The output for all texts, a batch at a time, in any order."""
        options = options_for(running)
        # Alike in length, so that little is computed on padding; the longest first, which shows early what it takes.
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index].ids), reverse=True)
        for rows in _batches(order):
            feeds, mask = self._feeds([tokens[row] for row in rows])
            try:
                (array,) = self._session.run(feeds, options, outputs=[output])
            except AttemptError as error:
                if error.kind is FailureKind.INVALID_REQUEST:
                    # The tokens are ours: what the model does not take is not the caller's mistake.
                    raise AttemptError(FailureKind.INTERNAL, error.sentence) from None
                raise
            yield Outcome(rows, array.astype(numpy.float32, copy=False), mask)

    def _feeds(self, batch: Sequence[Tokens]) -> tuple[dict[str, Array], Array]:
        """The model's inputs, and the attention mask whether it is one of them or not."""
        shape = (len(batch), max(1, *(len(text.ids) for text in batch)))
        ids = numpy.full(shape, self._tokenizer.pad_id, dtype=numpy.int64)
        mask = numpy.zeros(shape, dtype=numpy.int64)
        types = numpy.zeros(shape, dtype=numpy.int64)
        for row, text in enumerate(batch):
            length = len(text.ids)
            ids[row, :length] = text.ids
            mask[row, :length] = 1
            types[row, :length] = text.type_ids
        positions = numpy.broadcast_to(numpy.arange(shape[1], dtype=numpy.int64), shape)
        known = {_IDS: ids, _MASK: mask, _TYPES: types, _POSITIONS: positions}
        return {port.name: known[port.name].astype(port.dtype, copy=False) for port in self._session.inputs}, mask

    def _check_inputs(self) -> None:
        ports = self._session.inputs
        strange = [port.name for port in ports if port.name not in _INPUTS or port.dtype not in ("int64", "int32")]
        if strange or _IDS not in [port.name for port in ports]:
            why = f"texts give a model {', '.join(_INPUTS)}, and it wants {_names(ports)}"
            raise unavailable(self.name, why)
        if any(isinstance(axis, int) for port in ports for axis in port.shape or ()):
            why = "its inputs have a fixed size; export it with dynamic batch and sequence axes"
            raise unavailable(self.name, why)


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} ({port})" for port in ports)


def _batches(indices: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(indices), _BATCH):
        yield list(indices[start : start + _BATCH])
