"""Metrics of settled requests: they add up to the records, and no name of a client makes them grow without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.observing.meters import OTHER, Histogram, MeterBook, tokens_by_kind
from supervisor.storage.records import AcceptedRequest, Settlement, TokenUsage, UsageRecord

BOUNDS = (0.01, 0.1, 1.0)
NAMES = st.sampled_from(["a", "b", "c", "d", OTHER])
COUNTS = st.integers(0, 10**6)
TIMES = st.none() | st.integers(0, 10**9).map(lambda micros: micros / 1_000)


def record(
    model: str | None = "m",
    project: str = "p",
    *,
    stream: bool = False,
    tokens: tuple[int, int, int] = (0, 0, 0),
    cost: int | None = None,
    outcome: str = "ok",
    times: tuple[float | None, float | None, float | None] = (None, None, None),
) -> UsageRecord:
    """A settled request; `tokens`: prompt, completion, cached; `times`: queued, first byte, total, milliseconds."""
    request = AcceptedRequest("req_1", project, "key", "endpoint", "chat", stream, 0)
    queued, first, total = times
    settlement = Settlement(
        "req_1",
        outcome,
        TokenUsage(*tokens),
        cost,
        0,
        model=model,
        queued_ms=queued,
        first_byte_ms=first,
        total_ms=total,
    )
    return UsageRecord(request, settlement)


RECORDS = st.lists(
    st.builds(
        record,
        model=st.none() | NAMES,
        project=NAMES,
        stream=st.booleans(),
        tokens=st.tuples(COUNTS, COUNTS, COUNTS),
        cost=st.none() | COUNTS,
        outcome=st.sampled_from(["ok", "cut"]),
        times=st.tuples(TIMES, TIMES, TIMES),
    ),
    max_size=40,
)


@given(RECORDS, st.integers(1, 6))
def test_figures_add_up_to_the_records_by_model_and_by_project(records: list[UsageRecord], limit: int) -> None:
    book = MeterBook(limit)
    for one in records:
        book.observe(one)
    settled = [one.settlement for one in records if one.settlement is not None]
    by_model, by_project = [meters.used for meters in book.models.values()], list(book.projects.values())
    for used in (by_model, by_project):
        assert len(used) <= limit + 1
        assert sum(each.by_outcome.total() for each in used) == len(settled)
        assert sum(each.cost_micros for each in used) == sum(one.cost_micros or 0 for one in settled)
        assert sum(each.prompt_tokens for each in used) == sum(one.usage.prompt_tokens for one in settled)
        assert sum(each.cached_tokens for each in used) == sum(one.usage.cached_tokens for one in settled)
        assert sum(each.completion_tokens for each in used) == sum(one.usage.completion_tokens for one in settled)
    waits = [one.queued_ms for one in settled if one.queued_ms is not None]
    assert sum(meters.queue_wait.count for meters in book.models.values()) == len(waits)
    waited = sum(meters.queue_wait.sum_micros for meters in book.models.values())
    assert waited == sum(round(wait * 1_000) for wait in waits)


@given(st.lists(st.integers(0, 3_000_000), max_size=50))
def test_each_value_is_in_every_bucket_that_holds_it(micros: list[int]) -> None:
    histogram = Histogram(BOUNDS)
    for value in micros:
        histogram.observe(value / 1_000)
    *buckets, (last, count) = histogram.cumulative()
    assert (last, count) == ("+Inf", len(micros))
    assert buckets == [(repr(bound), sum(value / 1e6 <= bound for value in micros)) for bound in BOUNDS]
    assert histogram.sum_micros == sum(micros)


def test_the_first_names_are_kept_and_the_rest_share_one() -> None:
    book = MeterBook(2)
    for name in ("a", "b", "c", "d", "a"):
        book.observe(record(name, f"of {name}"))
    assert {name: meters.used.by_outcome["ok"] for name, meters in book.models.items()} == {"a": 2, "b": 1, OTHER: 2}
    assert set(book.projects) == {"of a", "of b", OTHER}


def test_what_never_came_to_an_engine_is_known_by_what_was_asked_for() -> None:
    book = MeterBook(2)
    book.observe(record(None, outcome="refused"))
    assert list(book.models) == ["endpoint"]


def test_when_tokens_came_is_known_of_streams_alone() -> None:
    book = MeterBook(2)
    times = (5.0, 100.0, 1_100.0)
    book.observe(record("whole", tokens=(3, 11, 0), times=times))
    book.observe(record("stream", stream=True, tokens=(3, 11, 0), times=times))
    book.observe(record("one token", stream=True, tokens=(3, 1, 0), times=times))
    whole, stream = book.models["whole"], book.models["stream"]
    assert (whole.duration.sum_seconds, whole.first_token.count, whole.inter_token.count) == (1.1, 0, 0)
    assert (stream.first_token.sum_seconds, stream.inter_token.sum_seconds) == (0.1, 0.1)
    assert list(tokens_by_kind(stream.used)) == [("prompt", 3), ("cached", 0), ("completion", 11)]


def test_a_record_that_is_still_open_counts_nothing() -> None:
    book = MeterBook(2)
    book.observe(UsageRecord(record().request, None))
    assert not book.models
