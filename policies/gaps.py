"""What a policy must be judged without: what of its file could not be read, or is mistaken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gaps:
    """There are mistakes in the file before the policy is judged.

    ``names`` are those of backends that are left out for their mistakes, and their labels: rules may use them. ``None``
    if there may be any name. ``elsewhere``: classes, places, rules and backends are complete; the mistakes are in other
    parts of the file.
    """

    names: frozenset[str] | None = frozenset()
    elsewhere: bool = False
