"""What requests have cost: today and in this calendar month, by local time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime

from ..policies.facts import SpendingFacts
from .snapshot import JsonValue, Unreadable, number, table

_DAYS_KEPT = 62
_MOST_DOLLARS = 1e9
_ROUNDING = 1e-9


class Spending:
    """Adds up what attempts cost, in US dollars, failed and abandoned ones included, by the day.

    By days, so that a clock that was wrong for a while neither loses what was spent nor counts it for ever. What other
    processes with the same state file have spent counts once it is there.
    """

    def __init__(self, wall_clock: Callable[[], datetime]) -> None:
        self._wall_clock = wall_clock
        self._filed: dict[date, float] = {}
        self._filing: dict[date, float] = {}
        self._unfiled: dict[date, float] = {}
        self._known: tuple[date, SpendingFacts] | None = None

    def add(self, dollars: float) -> None:
        """An attempt has ended, and cost so much."""
        if dollars > 0:
            today = self._wall_clock().date()
            if today in self._unfiled:
                self._unfiled[today] += dollars
            else:
                self._unfiled[today] = dollars
                self._forget_the_oldest()
            self._known = None

    def facts(self, today: date) -> SpendingFacts:
        """In whole cents; a begun one counts."""
        if self._known is None or self._known[0] != today:
            days = self._days()
            month = math.fsum(
                dollars for day, dollars in days.items() if (day.year, day.month) == (today.year, today.month)
            )
            self._known = today, SpendingFacts(_cents(days.get(today, 0.0)), _cents(month))
        return self._known[1]

    def snapshot(self) -> JsonValue:
        """US dollars by the day."""
        return {day.isoformat(): dollars for day, dollars in sorted(self._days().items())}

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back; its days are the calendar's, which no ``shift`` moves. Raises `Unreadable`."""
        self._filed = _read(value)
        self._forget_the_oldest()
        self._known = None

    def join(self, value: JsonValue) -> None:
        """Take what the file holds now, beside what was added here and is not in it yet."""
        with suppress(Unreadable):  # then what it held before counts
            self._filed = _read(value)
        self._filing, self._unfiled = _sum(self._filing, self._unfiled), {}
        self._forget_the_oldest()
        self._known = None

    def filed(self) -> None:
        """The last snapshot is in the file."""
        self._filed, self._filing = _sum(self._filed, self._filing), {}

    def _days(self) -> dict[date, float]:
        return _sum(_sum(self._filed, self._filing), self._unfiled)

    def _forget_the_oldest(self) -> None:
        for day in sorted(self._days())[:-_DAYS_KEPT]:
            for days in (self._filed, self._filing, self._unfiled):
                days.pop(day, None)


def _sum(one: Mapping[date, float], other: Mapping[date, float]) -> dict[date, float]:
    return {day: one.get(day, 0.0) + other.get(day, 0.0) for day in one.keys() | other.keys()}


def _read(value: JsonValue) -> dict[date, float]:
    stored = table(value)
    days: dict[date, float] = {}
    for day in stored:
        try:
            days[date.fromisoformat(day)] = number(stored, day, 0.0, _MOST_DOLLARS)
        except ValueError as error:
            raise error if isinstance(error, Unreadable) else Unreadable("no day") from None
    return days


def _cents(dollars: float) -> int:
    return math.ceil(dollars * 100 - _ROUNDING)
