"""The page on usage adds up to what the books hold, however it is divided."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supervisor.storage.usage import UsageSum
from web.page_filters import milliseconds, moment, money
from web.usage_data import GROUPS_MOST, METRICS, OTHERS, STRETCHES, Stretch, usage_picture

NOW_MS = 1_790_000_123_456
STARTS = STRETCHES["month"].starts(NOW_MS)
counts = st.integers(0, 10**9)
groups = st.one_of(st.none(), st.sampled_from([f"model-{number}" for number in range(12)]), st.text(max_size=8))
sums = st.builds(
    UsageSum, st.tuples(st.sampled_from(STARTS), groups), st.integers(1, 10**6), counts, counts, st.just(0), counts, st.just(0)
)  # fmt: skip


def test_a_stretch_ends_with_the_present_step_and_begins_where_the_days_do() -> None:
    for stretch in STRETCHES.values():
        starts = stretch.starts(NOW_MS)
        assert starts[-1] <= NOW_MS < starts[-1] + stretch.width_ms
        assert len(starts) * stretch.width_ms == stretch.span_ms
        assert all(start % stretch.width_ms == 0 for start in starts)
    assert Stretch("", 4, 2).starts(7) == [4, 6]


@given(st.lists(sums, max_size=60), st.sampled_from(sorted(METRICS)))
def test_rows_steps_and_chart_add_up_to_the_total(given_sums: list[UsageSum], metric: str) -> None:
    picture: dict[str, Any] = usage_picture(given_sums, STARTS, metric, {})
    whole = picture["total"].metric(metric)
    assert picture["total"].requests == sum(one.requests for one in given_sums)
    assert sum(row["figures"].metric(metric) for row in picture["rows"]) == whole
    assert sum(step["figures"].metric(metric) for step in picture["steps"]) == whole
    series = picture["chart"]["series"]
    assert sum(sum(one["values"]) for one in series) == whole
    assert [one["name"] for one in series] == [row["name"] for row in picture["rows"]]
    assert len(picture["rows"]) <= GROUPS_MOST
    assert len(picture["chart"]["times"]) == len(STARTS)


def test_most_comes_first_and_the_rest_is_added_up() -> None:
    used = [UsageSum((STARTS[0], f"m{size}"), 1, size, 0, 0, 0, 0) for size in range(1, 12)]
    rows = usage_picture(used, STARTS, "tokens", {"m11": "the largest"})["rows"]
    assert [row["name"] for row in rows] == ["the largest", "m10", "m9", "m8", "m7", "m6", OTHERS]
    assert rows[-1]["figures"].prompt_tokens == sum(range(1, 6))


def test_values_for_people() -> None:
    assert [money(each, "USD") for each in (0, 12_345_600_000, -500_000, 1, None)] == [
        "0.00 USD", "12,345.60 USD", "-0.50 USD", "0.000001 USD", "–",
    ]  # fmt: skip
    assert [milliseconds(each) for each in (None, 3.4, 999.4, 1_250, 125_000)] == [
        "–",
        "3 ms",
        "999 ms",
        "1.2 s",
        "2 min 5 s",
    ]
    assert moment(None) == ""
    assert moment("2026-11-21T10:00:07.000Z", seconds=True) == (
        '<time datetime="2026-11-21T10:00:07.000Z" data-seconds>2026-11-21 10:00:07 UTC</time>'
    )
    assert moment("2026-11-21T10:00:00.000Z") == (
        '<time datetime="2026-11-21T10:00:00.000Z">2026-11-21 10:00 UTC</time>'
    )
