"""How content stands in the file: as text where it is not encrypted, as bytes where it is (AES-256-GCM).

A sealed value is a random nonce and the ciphertext. It is bound to its receipt and its column: moved to another place
it does not open. No value says by which key it is sealed: that stands in one place, as a proof that only its key opens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import OutboxLocked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Stored = str | bytes
"""A value in the file."""

_NONCE_BYTES = 12


class Unopened(Exception):
    """A stored value is not one that was sealed here, by any of the keys."""


class Sealing:
    """Seals with the first key, opens with any. Without keys it seals nothing. Raises `OutboxLocked`."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        cipher = _cipher() if keys else None
        self._ciphers: list[AESGCM] = [] if cipher is None else [cipher(key) for key in keys]

    @property
    def seals(self) -> bool:
        """Whether there is a key."""
        return bool(self._ciphers)

    @property
    def first(self) -> Sealing:
        """By the first key alone."""
        only = Sealing()
        only._ciphers = self._ciphers[:1]
        return only

    def seal(self, text: str, receipt: str, column: str) -> Stored:
        """The value to store."""
        if not self._ciphers:
            return text
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, text.encode(), _place(receipt, column))

    def open(self, stored: Stored, receipt: str, column: str) -> str:
        """The text of a stored value. Raises `Unopened` for one that was altered, or stands where it must not."""
        if isinstance(stored, str) and not self._ciphers:
            return stored
        if isinstance(stored, bytes) and self._ciphers and len(stored) > _NONCE_BYTES:
            from cryptography.exceptions import InvalidTag

            nonce, sealed = stored[:_NONCE_BYTES], stored[_NONCE_BYTES:]
            for cipher in self._ciphers:
                try:
                    return cipher.decrypt(nonce, sealed, _place(receipt, column)).decode()
                except (InvalidTag, ValueError):
                    continue
        raise Unopened


def _cipher() -> type[AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise OutboxLocked("an encrypted outbox needs cryptography; run `pip install 'edgewise[encryption]'`") from None
    return AESGCM


def _place(receipt: str, column: str) -> bytes:
    return f"edgewise outbox\0{receipt}\0{column}".encode()
