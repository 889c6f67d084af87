"""A model's tokens, by llama.cpp's C functions."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cached_property

import llama_cpp

_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


class Vocabulary:
    """A model's tokens. All methods may be used from any thread, also while the context decodes."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size: int = llama_cpp.llama_vocab_n_tokens(handle)
        bos, eos = llama_cpp.llama_vocab_bos(handle), llama_cpp.llama_vocab_eos(handle)
        self.begins_with: int | None = bos if bos >= 0 and llama_cpp.llama_vocab_get_add_bos(handle) else None
        self.bos_text = self._text(bos)
        self.eos_text = self._text(eos)
        texts = (self._text(n) for n in range(self.size) if llama_cpp.llama_vocab_get_attr(handle, n) & _CONTROL)
        self.control_texts = frozenset(text for text in texts if text)

    def tokenise(self, text: str, *, control: bool, framed: bool = False) -> list[int]:
        """The tokens of a text.

        With ``control``, control tokens written out in it become themselves; with ``framed``, the model's own tokens
        for a text's beginning and end stand around it.
        """
        data = text.encode()
        room = len(data) + 2
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self.handle, data, len(data), tokens, room, framed, control)
            if count >= 0:
                return tokens[:count]
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; none for a control token."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self.handle, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    @cached_property
    def byte_tokens(self) -> Mapping[int, int]:
        """The token that adds a single byte to a text, for each byte that has one."""
        pieces = ((self.piece(token), token) for token in range(self.size))
        return {piece[0]: token for piece, token in pieces if len(piece) == 1}

    def ends_turn(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        return bool(llama_cpp.llama_vocab_is_eog(self.handle, token))

    def _text(self, token: int) -> str:
        return str(llama_cpp.llama_vocab_get_text(self.handle, token).decode("utf-8", "replace")) if token >= 0 else ""
