"""What is counted of the traffic, on a clock that a test turns."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.errors import EngineDeadlineError, EngineDiedError, NotAvailableError, RequestCancelledError
from supervisor.gateway.traffic import Outcome, TrafficStats, Window


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1_000.25

    def monotonic(self) -> float:
        """Where the hand is."""
        return self.now


@pytest.fixture
def clock() -> Hand:
    """At some time."""
    return Hand()


@pytest.fixture
def stats(clock: Hand) -> TrafficStats:
    """Nothing counted yet."""
    return TrafficStats(clock)  # type: ignore[arg-type]


def request_that_fails(stats: TrafficStats, error: BaseException, *, told: Outcome | None = None) -> None:
    """A request that ends with an exception, after its outcome may have been told."""
    record = stats.begin("one")
    assert stats.figures(["one"]).active == 1
    if told is not None:
        record.settle(told)
    record.end(error)


def test_nothing_yet_is_zero_everywhere(stats: TrafficStats) -> None:
    figures = stats.figures(["one", "unknown"])
    assert figures.requests_total == figures.tokens_total == figures.active == figures.queued == 0
    assert figures.tokens_per_second == figures.average_response_ms == 0.0
    assert set(figures.by_outcome) == {outcome.value for outcome in Outcome}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EngineDiedError("x"), "engine_died"),
        (EngineDeadlineError("x"), "timeout"),
        (NotAvailableError("x"), "refused"),
        (RequestCancelledError("x"), "cancelled"),
        (asyncio.CancelledError(), "client_gone"),
        (ConnectionResetError(), "client_gone"),
    ],
)
def test_a_request_ends_as_its_exception_says(stats: TrafficStats, error: BaseException, outcome: str) -> None:
    request_that_fails(stats, error)
    assert stats.figures(["one"]).by_outcome[outcome] == 1
    assert stats.figures(["one"]).active == 0


def test_the_first_outcome_counts_and_only_once(stats: TrafficStats) -> None:
    request_that_fails(stats, ConnectionResetError(), told=Outcome.CUT)
    figures = stats.figures(["one"])
    assert figures.by_outcome["cut"] == figures.requests_total == 1


def test_tokens_flow_over_ten_seconds(stats: TrafficStats, clock: Hand) -> None:
    record = stats.begin("one")
    for count in (1, 2, 3):
        record.count_tokens(count)
    clock.now += 2
    record.count_tokens(50)
    assert stats.figures(["one"]).tokens_per_second == 5.0
    clock.now += 9
    assert stats.figures(["one"]).tokens_per_second == 4.7
    clock.now += 2
    figures = stats.figures(["one"])
    assert figures.tokens_per_second == 0.0
    assert figures.tokens_total == 50


def test_the_engines_own_figure_corrects_what_was_counted(stats: TrafficStats) -> None:
    record = stats.begin("one")
    record.count_tokens(12)
    record.count_tokens(10)
    assert stats.figures(["one"]).tokens_total == 10


def test_the_average_is_of_complete_answers_of_the_last_minute(stats: TrafficStats, clock: Hand) -> None:
    for seconds in (0.1, 0.3):
        record = stats.begin("one")
        clock.now += seconds
        record.end(None)
    request_that_fails(stats, EngineDiedError("x"))
    assert stats.figures(["one"]).average_response_ms == 200.0
    clock.now += 60
    figures = stats.figures(["one"])
    assert figures.average_response_ms == 0.0
    assert figures.requests_total == 3


def test_several_instances_are_summed(stats: TrafficStats) -> None:
    for name in ("one", "two"):
        record = stats.begin(name)
        record.count_tokens(10)
        record.end(None)
    figures = stats.figures(["one", "two"])
    assert (figures.requests_total, figures.tokens_total, figures.tokens_per_second) == (2, 20, 2.0)


def test_a_window_holds_no_more_than_its_seconds() -> None:
    window = Window(10)
    for second in range(1_000):
        window.add(float(second), 1.0)
    assert window.read(999.0) == (10.0, 10.0)
