"""Durations as people write them: ``800ms``, ``2s``, ``1.5m``, ``24h``, ``7d``."""

from __future__ import annotations

import math
import re

_SECONDS_PER_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(us|ms|s|m|h|d)\s*", re.ASCII)


def parse_duration(value: float | str) -> float:
    """Return seconds, from a number of seconds or a text such as ``'800ms'``.

    Raises ``ValueError`` for anything else: a bare number in a text (its unit is a guess), a negative
    or an infinite duration.
    """
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value)
        if match is None:
            raise ValueError(f"not a duration: {value!r}; write it like '800ms', '2s', '5m' or '24h'")
        seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2]]
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not a duration: {type(value).__name__}; give seconds, or a text like '800ms'")
    else:
        try:
            seconds = float(value)
        except OverflowError:  # an integer beyond any float
            seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a duration: {seconds}; give a finite number of seconds, zero or more")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a short text for people: ``1.2 ms``, ``850 ms``, ``2.3 s``, ``1 h 5 min``."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1.0:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120.0:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
