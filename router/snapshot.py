"""What outlives a restart: values of JSON that their owners give out, and take back in the next process.

Every value read back may have been altered or torn, so that it is judged before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

JsonValue: TypeAlias = "Mapping[str, JsonValue] | list[JsonValue] | str | float | bool | None"


class Unreadable(ValueError):
    """A stored value is not what its owner gave out."""


class Lasting(Protocol):
    """Owns something that outlives a restart."""

    def snapshot(self) -> JsonValue:
        """What is worth keeping; the same as before where nothing has changed. Times are on the router's clock."""

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back. ``shift``, in seconds, added to a time in it, gives that time on this router's clock.

        Raises `Unreadable`; what it cannot read it leaves as it was.
        """


class Summed(Lasting, Protocol):
    """Adds up what several processes with one file contribute: none may overwrite what another has added."""

    def join(self, value: JsonValue) -> None:
        """Take what the file holds now, beside what was added here and is not in it yet; the next snapshot is both.

        ``value`` may be anything, and ``None`` where the file holds nothing.
        """

    def filed(self) -> None:
        """The snapshot that was taken after `join` is in the file."""


def table(value: JsonValue, key: str | None = None) -> Mapping[str, JsonValue]:
    """The value as a mapping, or the mapping that stands in it under ``key``. Raises `Unreadable`."""
    if key is not None:
        value = table(value).get(key)
    if not isinstance(value, Mapping):
        raise Unreadable(f"no table at {key!r}")
    return value


def number(values: Mapping[str, JsonValue], key: str, low: float = -1e12, high: float = 1e12) -> float:
    """The number under a key, from ``low`` to ``high``. Raises `Unreadable`."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"no number at {key!r}")
    # As it is: an integer may be too large for a float. What is no number lies within no bounds.
    if not low <= value <= high:
        raise Unreadable(f"an impossible number at {key!r}")
    return float(value)


def numbers(values: Mapping[str, JsonValue], key: str) -> list[float]:
    """The list of numbers under a key. Raises `Unreadable`."""
    value = values.get(key)
    if not isinstance(value, list):
        raise Unreadable(f"no list at {key!r}")
    return [number({key: each}, key) for each in value]


def text(values: Mapping[str, JsonValue], key: str) -> str:
    """The text under a key. Raises `Unreadable`."""
    value = values.get(key)
    if not isinstance(value, str):
        raise Unreadable(f"no text at {key!r}")
    return value


def flag(values: Mapping[str, JsonValue], key: str) -> bool:
    """The truth value under a key. Raises `Unreadable`."""
    value = values.get(key)
    if not isinstance(value, bool):
        raise Unreadable(f"no truth value at {key!r}")
    return value
