"""How content stands in the file: as text where it is not encrypted, as bytes where it is (AES-256-GCM).

A sealed value is a byte for the format, the key's name, a random nonce, and the ciphertext. It is bound to its receipt
and its column: moved to another place it does not open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import OutboxLocked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Stored = str | bytes
"""A value in the file."""

UNREADABLE = ""
"""Stands for a sealed value that was altered. It is no JSON, so that whoever reads it finds out."""

_FORMAT = b"\x01"
_NAME_BYTES = 8
_NONCE_BYTES = 12


class Sealing:
    """Seals with the first key, opens with any. Without keys it seals nothing. Raises `OutboxLocked`."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers: dict[bytes, AESGCM] = {}
        if keys:
            cipher = _cipher()
            self._ciphers = {_name(key): cipher(key) for key in keys}
        self.mark = b"" if not keys else _FORMAT + _name(keys[0])
        """What every value begins with that is sealed by the first key."""

    def seal(self, text: str, receipt: str, column: str) -> Stored:
        """The value to store."""
        if not self.mark:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self.mark[len(_FORMAT) :]]
        return self.mark + nonce + cipher.encrypt(nonce, text.encode(), _place(receipt, column))

    def open(self, stored: Stored, receipt: str, column: str) -> str:
        """The text of a stored value; `UNREADABLE` for one that was altered."""
        if isinstance(stored, str):
            return stored
        self.require(stored)
        from cryptography.exceptions import InvalidTag

        start = len(_FORMAT) + _NAME_BYTES
        nonce, sealed = stored[start : start + _NONCE_BYTES], stored[start + _NONCE_BYTES :]
        try:
            return self._ciphers[stored[len(_FORMAT) : start]].decrypt(nonce, sealed, _place(receipt, column)).decode()
        except (InvalidTag, ValueError):
            return UNREADABLE

    def require(self, stored: Stored) -> None:
        """Raise `OutboxLocked` for a value that none of the keys opens."""
        if isinstance(stored, str):
            return
        if not self._ciphers:
            raise OutboxLocked("the outbox is encrypted; say in `policy.offline.encryption` where its key is")
        name = stored[len(_FORMAT) : len(_FORMAT) + _NAME_BYTES]
        if not stored.startswith(_FORMAT) or name not in self._ciphers:
            raise OutboxLocked(
                "the outbox is encrypted with another key; add that one below the first, "
                "or move the file away to begin a new one"
            )


def _cipher() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise OutboxLocked("an encrypted outbox needs cryptography; run `pip install 'edgewise[encryption]'`") from None
    return AESGCM


def _name(key: bytes) -> bytes:
    """Tells keys apart, and nothing of them: a key is random, and too long to be guessed."""
    return hashlib.sha256(b"edgewise outbox key\0" + key).digest()[:_NAME_BYTES]


def _place(receipt: str, column: str) -> bytes:
    return f"edgewise outbox\0{receipt}\0{column}".encode()
