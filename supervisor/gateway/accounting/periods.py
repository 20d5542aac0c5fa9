"""The calendar of budgets: days, ISO weeks and months in UTC, as spans of Unix milliseconds. There is no summer time, and no time zone but one.

This is the one decision that rests on the wall clock, for it only names the period. When that clock is set, requests are counted to the period
that it names from then on: nothing expires, and what was counted to another period stays there.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from supervisor.storage.accounts import Period

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1).toordinal()
_EPOCH_WEEKDAY = 3
"""The first of January 1970 was a Thursday."""


class Span(NamedTuple):
    """From `start_ms` on, and before `end_ms`."""

    start_ms: int
    end_ms: int


def span(period: Period, at_ms: int) -> Span:
    """The period that `at_ms` lies in."""
    day = at_ms // DAY_MS
    if period is Period.DAY:
        first, after = day, day + 1
    elif period is Period.WEEK:
        first = day - (day + _EPOCH_WEEKDAY) % 7
        after = first + 7
    else:
        month = date.fromordinal(day + _EPOCH).replace(day=1)
        # The 32nd day from the first is always in the next month.
        following = date.fromordinal(month.toordinal() + 31).replace(day=1)
        first, after = month.toordinal() - _EPOCH, following.toordinal() - _EPOCH
    return Span(first * DAY_MS, after * DAY_MS)


def name(period: Period, at_ms: int) -> str:
    """How people call the period that `at_ms` lies in: `2026-11-21`, `2026-W47`, `2026-11`."""
    day = date.fromordinal(at_ms // DAY_MS + _EPOCH)
    if period is Period.DAY:
        return day.isoformat()
    if period is Period.WEEK:
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02}"
    return f"{day.year:04}-{day.month:02}"
