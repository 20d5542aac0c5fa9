"""Learned reservations: sensible before there is experience, close after it, bounded always, and the same for the same requests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.gateway.accounting import estimate
from supervisor.gateway.accounting.estimate import REFRESH, WINDOW, Assumptions, Estimate, Estimator, percentile_of
from supervisor.storage.records import TokenSource, TokenUsage

CHAT = ("p", "m", "chat")
ASSUMED = Assumptions(completion_tokens=500, bytes_per_token=4, most_prompt_tokens=10_000, percentile=90)


def taught(*answers: int, prompt_tokens: int = 100, body_length: int = 1_000) -> Estimator:
    """An estimator that has seen answers of so many tokens."""
    made = Estimator(ASSUMED)
    for completion in answers:
        made.learn(*CHAT, body_length, TokenUsage(prompt_tokens, completion, 0, TokenSource.ENGINE))
    return made


@pytest.mark.parametrize(
    ("body_length", "max_tokens", "expected"),
    [
        (400, None, Estimate(100, 500)),
        (401, None, Estimate(101, 500)),
        (400, 20, Estimate(100, 20)),
        (400, 9_999, Estimate(100, 500)),
        (0, 1, Estimate(0, 1)),
        (50_000_000, None, Estimate(10_000, 500)),
    ],
)
def test_what_is_assumed_at_first(body_length: int, max_tokens: int | None, expected: Estimate) -> None:
    assert Estimator(ASSUMED).estimate(*CHAT, body_length, max_tokens) == expected
    assert taught(*[7] * (REFRESH - 1)).estimate(*CHAT, body_length, max_tokens) == expected


def test_what_is_learned() -> None:
    learned = taught(*[10] * 7, 80)
    assert learned.estimate(*CHAT, 2_000, None) == Estimate(202, 80)
    assert learned.estimate(*CHAT, 2_000, 15) == Estimate(202, 15)
    assert learned.estimate("q", "m", "chat", 2_000, None) == Estimate(500, 500)
    assert learned.estimate("p", "m", "embeddings", 2_000, None) == Estimate(500, 500)


def test_each_answer_of_several_is_held_back_and_learned_for_itself() -> None:
    assert Estimator(ASSUMED).estimate(*CHAT, 400, None, 50) == Estimate(100, 25_000)
    assert Estimator(ASSUMED).estimate(*CHAT, 400, 60, 50) == Estimate(100, 60)
    assert Estimator(ASSUMED).estimate(*CHAT, 50_000_000, None, 2) == Estimate(20_000, 1_000)
    made = Estimator(ASSUMED)
    for _ in range(REFRESH):
        made.learn(*CHAT, 1_024, TokenUsage(8, 40, 0, TokenSource.ENGINE), 4)
    assert made.estimate(*CHAT, 1_024, None) == Estimate(8, 10)
    assert made.estimate(*CHAT, 1_024, None, 3) == Estimate(8, 30)


def test_a_rare_long_answer_is_not_held_back_for_everybody() -> None:
    assert taught(*[10] * 60, *[4_000] * 4).estimate(*CHAT, 100, None).completion_tokens == 10
    assert taught(*[10] * 56, *[4_000] * 8).estimate(*CHAT, 100, None).completion_tokens == 4_000


def test_a_change_is_followed_within_a_window() -> None:
    assert taught(*[900] * 200, *[30] * WINDOW).estimate(*CHAT, 100, None).completion_tokens == 30


def test_answers_without_completion_reserve_none() -> None:
    assert taught(*[0] * REFRESH).estimate(*CHAT, 100, None).completion_tokens == 0


def test_other_assumptions_take_effect() -> None:
    learned = taught()
    learned.assumptions = Assumptions(completion_tokens=7, bytes_per_token=2)
    assert learned.estimate(*CHAT, 10, None) == Estimate(5, 7)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "MOST_TRAITS", 3)
    learned = Estimator(ASSUMED)
    for name in "abcd":
        for _ in range(REFRESH):
            learned.learn("p", name, "chat", 100, TokenUsage(1, 1))
    known = [learned.estimate("p", name, "chat", 0, None).completion_tokens for name in "abcd"]
    assert known == [500, 1, 1, 1]


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(1, 100))
def test_a_percentile_covers_as_many_as_it_says_and_no_more(values: list[int], percentile: int) -> None:
    found = percentile_of(values, percentile)
    covered = sum(value <= found for value in values)
    assert covered >= math.ceil(len(values) * percentile / 100)
    assert sum(value < found for value in values) < math.ceil(len(values) * percentile / 100)


REQUESTS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5)), max_size=150)


@given(REQUESTS, st.integers(0, 10**8), st.none() | st.integers(1, 10**6))
def test_estimates_are_bounded_and_repeat_themselves(
    requests: list[tuple[int, int, int]], body_length: int, max_tokens: int | None
) -> None:
    one, two = Estimator(ASSUMED), Estimator(ASSUMED)
    for length, prompt, completion in requests:
        for each in (one, two):
            each.learn(*CHAT, length, TokenUsage(prompt, completion))
    found = one.estimate(*CHAT, body_length, max_tokens)
    assert found == two.estimate(*CHAT, body_length, max_tokens)
    assert 0 <= found.prompt_tokens <= ASSUMED.most_prompt_tokens
    assert 0 <= found.completion_tokens <= min(max_tokens or math.inf, max([500, *(each[2] for each in requests)]))
