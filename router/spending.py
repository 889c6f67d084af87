"""What requests have cost: today and in this calendar month, by local time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime

from ..policies.facts import SpendingFacts
from .snapshot import JsonValue, Unreadable, number, table

_DAYS_KEPT = 62
_MOST_DOLLARS = 1e9
_ROUNDING = 1e-9


class Spending:
    """Adds up what attempts cost, in US dollars, failed and abandoned ones included, by the day.

    By days, so that a clock that was wrong for a while neither loses what was spent nor counts it for ever.
    """

    def __init__(self, wall_clock: Callable[[], datetime]) -> None:
        self._wall_clock = wall_clock
        self._days: dict[date, float] = {}
        self._known: tuple[date, SpendingFacts] | None = None

    def add(self, dollars: float) -> None:
        """An attempt has ended, and cost so much."""
        if dollars > 0:
            today = self._wall_clock().date()
            self._days[today] = self._days.get(today, 0.0) + dollars
            self._forget_the_oldest()
            self._known = None

    def facts(self, today: date) -> SpendingFacts:
        """In whole cents; a begun one counts."""
        if self._known is None or self._known[0] != today:
            month = math.fsum(
                dollars for day, dollars in self._days.items() if (day.year, day.month) == (today.year, today.month)
            )
            self._known = today, SpendingFacts(_cents(self._days.get(today, 0.0)), _cents(month))
        return self._known[1]

    def snapshot(self) -> JsonValue:
        """US dollars by the day."""
        return {day.isoformat(): dollars for day, dollars in sorted(self._days.items())}

    def restore(self, value: JsonValue, shift: float) -> None:
        """Take a snapshot back; its days are the calendar's, which no ``shift`` moves. Raises `Unreadable`."""
        stored = table(value)
        days: dict[date, float] = {}
        for day in stored:
            try:
                days[date.fromisoformat(day)] = number(stored, day, 0.0, _MOST_DOLLARS)
            except ValueError as error:
                raise error if isinstance(error, Unreadable) else Unreadable("no day") from None
        self._days = days
        self._forget_the_oldest()
        self._known = None

    def _forget_the_oldest(self) -> None:
        while len(self._days) > _DAYS_KEPT:
            del self._days[min(self._days)]


def _cents(dollars: float) -> int:
    return math.ceil(dollars * 100 - _ROUNDING)
