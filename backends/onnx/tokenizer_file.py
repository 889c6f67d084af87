"""A tokenizer.json opened. Runs in the worker."""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers

from .unavailable import unavailable

_LONGEST = 1 << 16
"""Some files write a number without meaning where there is no limit."""


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A tokenizer that neither pads nor cuts, and what its file says of both: ``limit`` is in tokens."""

    tokenizer: tokenizers.Tokenizer
    pad_id: int
    limit: int | None


def read_tokenizer(model: str, path: str) -> TokenizerFile:
    """Open the file. Raises MODEL_UNAVAILABLE."""
    try:
        tokenizer = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # noqa: BLE001  # the library raises bare Exceptions
        raise unavailable(model, f"its tokenizer.json is missing or is none ({type(error).__name__})") from None
    padding, truncation = tokenizer.padding, tokenizer.truncation
    limit = truncation["max_length"] if truncation else None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return TokenizerFile(
        tokenizer,
        padding["pad_id"] if padding else 0,
        limit if limit is not None and limit <= _LONGEST else None,
    )
