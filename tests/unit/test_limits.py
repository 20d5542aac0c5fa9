"""Limits of keys and projects: a minute's worth at once, evenly refilled, tokens corrected when they are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import RateLimitedError
from supervisor.gateway.accounting.limits import Admission, LimitBook, duration_text
from supervisor.storage.accounts import NO_LIMITS, KeyRecord, Limits, Project
from supervisor.storage.records import Scope

START = 1_000_000.0


def book(key: Limits = NO_LIMITS, project: Limits = NO_LIMITS) -> LimitBook:
    """A book of limits with these defaults."""
    return LimitBook(key, project)


def enter(limits: LimitBook, now: float, *, key: str | None = "k", project: str = "p", tokens: int = 0) -> Admission:
    """Let a request in."""
    return Admission(limits.check(project, key, tokens, now), tokens, now)


def refusal(limits: LimitBook, now: float, *, key: str | None = "k", tokens: int = 0) -> RateLimitedError:
    """The error of a request that is not let in."""
    with pytest.raises(RateLimitedError, match=r"^Rate limit exceeded: ") as caught:
        limits.check("p", key, tokens, now)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    return caught.value


def told_to_wait(limits: LimitBook, now: float, *, tokens: int = 0) -> float:
    """When a request is told to come back; 0.0: it may come in."""
    try:
        limits.check("p", "k", tokens, now)
    except RateLimitedError as error:
        return error.retry_after_seconds or math.inf
    return 0.0


def key_record(key_id: str, limits: Limits) -> KeyRecord:
    """A key with limits of its own."""
    return KeyRecord(key_id, "p", bytes(32), frozenset({Scope.INFERENCE}), 0, limits=limits)


def test_requests_a_minute() -> None:
    limits = book(Limits(requests_per_minute=6))
    for _ in range(6):
        enter(limits, START)
    error = refusal(limits, START)
    assert error.retry_after_seconds == pytest.approx(10)
    assert (error.details, "key `k`" in str(error)) == ({"limit": "requests"}, True)
    refusal(limits, START + 9.9)
    enter(limits, START + 10)
    refusal(limits, START + 10)


def test_every_key_has_its_own_and_the_project_all_together() -> None:
    limits = book(Limits(requests_per_minute=2), Limits(requests_per_minute=3))
    enter(limits, START, key="a")
    enter(limits, START, key="a")
    refusal(limits, START, key="a")
    enter(limits, START, key="b")
    assert "project `p`" in str(refusal(limits, START, key="b"))
    assert "project `p`" in str(refusal(limits, START, key=None))
    enter(limits, START, key="c", project="other")


def test_who_is_refused_counts_nowhere() -> None:
    limits = book(Limits(requests_per_minute=10, concurrency=1), Limits(requests_per_minute=10))
    held = enter(limits, START)
    for _ in range(100):
        refusal(limits, START)
    held.settle(0, START)
    assert limits.headers("p", "k", START)["x-ratelimit-remaining-requests"] == "9"


def test_requests_at_a_time() -> None:
    limits = book(Limits(concurrency=2))
    first, second = enter(limits, START), enter(limits, START)
    assert limits.in_flight("p") == limits.in_flight("p", "k") == 2
    error = refusal(limits, START)
    assert (error.details, error.retry_after_seconds) == ({"limit": "concurrency"}, 1)
    first.settle(0, START)
    first.settle(0, START)
    enter(limits, START)
    refusal(limits, START)
    second.settle(0, START)
    assert limits.in_flight("p", "k") == 1
    assert limits.in_flight("q") == limits.in_flight("p", "q") == 0


def test_tokens_are_corrected_when_they_are_known() -> None:
    limits = book(Limits(tokens_per_minute=600))
    admitted = enter(limits, START, tokens=500)
    assert refusal(limits, START, tokens=101).details == {"limit": "tokens"}
    admitted.settle(100, START)
    assert limits.headers("p", "k", START)["x-ratelimit-remaining-tokens"] == "500"
    enter(limits, START, tokens=500).settle(1_100, START)
    assert limits.headers("p", "k", START)["x-ratelimit-remaining-tokens"] == "0"
    # The debt of 600 is paid off in a minute, the one token after it in a tenth of a second.
    assert refusal(limits, START, tokens=1).retry_after_seconds == pytest.approx(60.1)
    refusal(limits, START + 60, tokens=1)
    enter(limits, START + 60.1, tokens=1)


def test_a_request_larger_than_the_limit_waits_for_a_full_bucket() -> None:
    limits = book(Limits(tokens_per_minute=60))
    enter(limits, START, tokens=1)
    assert refusal(limits, START, tokens=10_000).retry_after_seconds == pytest.approx(1)
    enter(limits, START + 1, tokens=10_000)


def test_what_is_given_back_late_makes_no_more_than_a_full_bucket() -> None:
    limits = book(Limits(tokens_per_minute=60))
    enter(limits, START, tokens=60).settle(0, START + 3_600)
    assert limits.headers("p", "k", START + 3_600)["x-ratelimit-remaining-tokens"] == "60"


def test_limits_of_their_own_come_before_the_defaults() -> None:
    limits = book(Limits(requests_per_minute=1, concurrency=1), Limits(requests_per_minute=5))
    own = Limits(requests_per_minute=2, concurrency=9)
    limits.set_own([key_record("big", own)], [Project("p", Limits(requests_per_minute=3))], START)
    enter(limits, START, key="big")
    enter(limits, START, key="big")
    refusal(limits, START, key="big")
    enter(limits, START, key="small")
    assert "project `p`" in str(refusal(limits, START, key="other"))


def test_other_limits_take_effect_with_what_was_used() -> None:
    limits = book(Limits(requests_per_minute=10, concurrency=2))
    held = [enter(limits, START), enter(limits, START)]
    limits.set_defaults(Limits(requests_per_minute=4), NO_LIMITS, START)
    assert limits.headers("p", "k", START)["x-ratelimit-remaining-requests"] == "2"
    limits.set_defaults(Limits(concurrency=2), NO_LIMITS, START)
    assert limits.headers("p", "k", START) == {}
    refusal(limits, START)
    held[0].settle(0, START)
    enter(limits, START)


def test_a_key_whose_limits_are_changed_counts_on_and_the_others_are_as_they_were() -> None:
    limits = book()
    one, other = key_record("one", Limits(requests_per_minute=10, concurrency=3)), key_record("other", Limits(60))
    limits.set_own([one, other], [], START)
    held = [enter(limits, START, key=name) for name in ("one", "one", "other")]
    before = limits.headers("p", "other", START)
    limits.set_own([key_record("one", Limits(requests_per_minute=20, concurrency=2)), other], [], START)
    assert limits.headers("p", "other", START) == before
    assert limits.headers("p", "one", START)["x-ratelimit-remaining-requests"] == "18"
    assert refusal(limits, START, key="one").details == {"limit": "concurrency"}
    held[0].settle(0, START)
    enter(limits, START, key="one")
    enter(limits, START, key="other")


def test_the_headers_are_those_of_the_tighter_limit() -> None:
    limits = book(Limits(requests_per_minute=60, tokens_per_minute=6_000), Limits(requests_per_minute=30))
    enter(limits, START, tokens=600)
    assert limits.headers("p", "k", START) == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "29",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5400",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert set(limits.headers("p", None, START)) == {
        "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    }  # fmt: skip
    assert book().headers("p", "k", START) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-1, "0s"), (0.0001, "1ms"), (0.02, "20ms"), (0.9991, "1000ms"), (1, "1s"), (1.2, "2s"), (59.5, "1m0s"),
        (360, "6m0s"), (3_600, "1h0m0s"), (90_061, "25h1m1s"),
    ],
)  # fmt: skip
def test_times_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


STEPS = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 50), st.integers(0, 200)), min_size=1, max_size=60)


@given(st.integers(1, 100), STEPS)
def test_no_stretch_of_time_gets_more_requests_than_a_full_bucket_and_what_flowed_in(
    limit: int, steps: list[tuple[float, int, int]]
) -> None:
    limits = book(Limits(requests_per_minute=limit))
    now, times = START, list[float]()
    for wait_seconds, tries, _ in steps:
        now += wait_seconds
        for _ in range(tries):
            wait = told_to_wait(limits, now)
            if wait:
                assert 0 < wait <= 60 / limit + 1e-5
                break
            enter(limits, now).settle(0, now)
            times.append(now)
    for first in range(len(times)):
        for last in (first, len(times) - 1):
            stretch_seconds = times[last] - times[first]
            assert last - first + 1 <= limit + math.floor(stretch_seconds * limit / 60 + 1e-3)


@given(st.integers(1, 1_000), STEPS)
def test_who_comes_when_told_to_is_let_in(limit: int, steps: list[tuple[float, int, int]]) -> None:
    limits = book(Limits(tokens_per_minute=limit))
    now = START
    for wait_seconds, estimate, used in steps:
        now += wait_seconds
        now += told_to_wait(limits, now, tokens=estimate)
        enter(limits, now, tokens=estimate).settle(used, now)
    assert limits.in_flight("p", "k") == 0
