"""Types for the fields of settings, so that a reader of YAML knows how people write them.

A backend kind declares its settings as a frozen dataclass whose fields are ``Annotated[type, "what it means"]``:
the type says how the text is read, the sentence goes into messages and documentation.
"""

from __future__ import annotations

from typing import NewType

Seconds = NewType("Seconds", float)
"""Written as a duration: ``800ms``, ``24h``."""

ByteSize = NewType("ByteSize", int)
"""Written as a size: ``512MB``, ``2GiB``."""

Fraction = NewType("Fraction", float)
"""Written as a percentage or a number from 0 to 1: ``5%``, ``0.05``."""

FilePath = NewType("FilePath", str)
"""A path; a relative one counts from the configuration file's folder."""

ModelName = NewType("ModelName", str)
"""The name of an entry of the ``models:`` section."""


class Secret:
    """A value that is never shown: written as ``${NAME}`` and read from the environment."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
