"""The calendar of budgets: days, ISO weeks and months in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.accounting.periods import DAY_MS, name, span
from supervisor.storage.accounts import Period

MOMENTS = st.integers(-(10**12), 10**14)
MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    """A moment in UTC as Unix milliseconds."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MILLISECOND


@pytest.mark.parametrize(
    ("period", "at", "start", "end", "called"),
    [
        (Period.DAY, "2026-11-21T00:00:00", "2026-11-21", "2026-11-22", "2026-11-21"),
        (Period.DAY, "2026-11-21T23:59:59.999", "2026-11-21", "2026-11-22", "2026-11-21"),
        (Period.WEEK, "2026-11-21T12:00:00", "2026-11-16", "2026-11-23", "2026-W47"),
        (Period.WEEK, "2026-11-16T00:00:00", "2026-11-16", "2026-11-23", "2026-W47"),
        (Period.WEEK, "2026-11-15T23:59:59.999", "2026-11-09", "2026-11-16", "2026-W46"),
        # The first days of a year may belong to the last week of the one before, and the last days to the first of the next.
        (Period.WEEK, "2027-01-01T00:00:00", "2026-12-28", "2027-01-04", "2026-W53"),
        (Period.WEEK, "2024-12-31T00:00:00", "2024-12-30", "2025-01-06", "2025-W01"),
        (Period.MONTH, "2026-11-30T23:59:59.999", "2026-11-01", "2026-12-01", "2026-11"),
        (Period.MONTH, "2026-12-31T00:00:00", "2026-12-01", "2027-01-01", "2026-12"),
        (Period.MONTH, "2028-02-29T10:00:00", "2028-02-01", "2028-03-01", "2028-02"),
        (Period.MONTH, "2027-02-28T10:00:00", "2027-02-01", "2027-03-01", "2027-02"),
    ],
)
def test_spans_and_names(period: Period, at: str, start: str, end: str, called: str) -> None:
    assert span(period, ms(at)) == (ms(start), ms(end))
    assert name(period, ms(at)) == called


@given(st.sampled_from(Period), MOMENTS)
def test_a_period_holds_its_moment_and_meets_its_neighbours(period: Period, at_ms: int) -> None:
    start_ms, end_ms = span(period, at_ms)
    assert start_ms <= at_ms < end_ms
    assert span(period, start_ms) == span(period, end_ms - 1) == (start_ms, end_ms)
    assert span(period, end_ms).start_ms == end_ms
    assert span(period, start_ms - 1).end_ms == start_ms
    assert name(period, start_ms) == name(period, end_ms - 1) != name(period, end_ms)


@given(MOMENTS)
def test_days_divide_weeks_and_months_and_weeks_begin_on_mondays(at_ms: int) -> None:
    for period in Period:
        start_ms, end_ms = span(period, at_ms)
        assert start_ms % DAY_MS == end_ms % DAY_MS == 0
    assert (EPOCH + timedelta(milliseconds=span(Period.WEEK, at_ms).start_ms)).isoweekday() == 1
    assert (EPOCH + timedelta(milliseconds=span(Period.MONTH, at_ms).start_ms)).day == 1


@pytest.fixture
def summer_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time zone that sets its clocks forward and back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("summer_time")
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_summer_time_is_not_known(day: str) -> None:
    assert span(Period.DAY, ms(f"{day}T12:00:00")) == (ms(day), ms(day) + DAY_MS)
