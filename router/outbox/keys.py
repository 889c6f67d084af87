"""The keys of an encrypted outbox: where they are kept, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ...core.errors import OutboxLocked
from ...policies.settings import EncryptionSettings

KEY_BYTES = 32
KEYRING_SERVICE = "edgewise"
"""The service under which a key stands in the system keyring."""

_MAKE_ONE = "make one by `openssl rand -hex 32`"


def load_keys(settings: EncryptionSettings) -> list[bytes]:
    """All keys, the one to encrypt with first. Blocks. Raises `OutboxLocked`, which never quotes any."""
    where, read = _source(settings)
    words = read().split()
    if not words:
        mend = f"put the outbox's key there; for a new outbox, {_MAKE_ONE}"
        raise OutboxLocked(f"the outbox is encrypted, and {where} holds no key; {mend}")
    try:
        keys = [bytes.fromhex(word) for word in words]
    except ValueError:
        keys = []
    if any(len(key) != KEY_BYTES for key in keys) or not keys:
        raise OutboxLocked(f"what {where} holds is no key: each is 64 hexadecimal digits; {_MAKE_ONE}")
    return keys


def _source(settings: EncryptionSettings) -> tuple[str, Callable[[], str]]:
    """What people call it, and how it is read. The configuration has seen to it that there is one."""
    if settings.key_file is not None:
        path = Path(settings.key_file)
        return f"the file {path.name}", lambda: _read_file(path)
    if settings.key_env is not None:
        variable = settings.key_env
        return f"the environment variable {variable}", lambda: os.environ.get(variable, "")
    name = settings.keyring or ""
    return f"the system keyring, under {KEYRING_SERVICE!r} and {name!r},", lambda: _read_keyring(name)


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        return "not a key"
    except OSError as error:
        sentence = f"the outbox is encrypted, and its key cannot be read from the file {path.name}: {error.strerror}"
    raise OutboxLocked(f"{sentence}; put it there, or correct `policy.offline.encryption`")


def _read_keyring(name: str) -> str:
    try:
        import keyring
    except ImportError:
        raise OutboxLocked("the system keyring needs keyring; run `pip install 'edgewise[encryption]'`") from None
    try:
        return keyring.get_password(KEYRING_SERVICE, name) or ""
    except keyring.errors.KeyringError as error:
        kind = type(error).__name__
    raise OutboxLocked(f"the system keyring cannot be used here ({kind}); name a `key_file` or `key_env` instead")
