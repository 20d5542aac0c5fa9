"""What tokens cost: exact, in integers, and a function of nothing else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.storage.money import cost_micros, decimal_text, tokens_micros
from supervisor.storage.records import Price, TokenSource, TokenUsage

TOKENS = st.integers(0, 10**9)
PRICES = st.builds(Price, st.integers(0, 10**15), st.integers(0, 10**15))


@pytest.mark.parametrize(
    ("prompt", "completion", "price", "micros"),
    [
        (0, 0, Price(10, 10), 0),
        (1_000_000, 0, Price(150_000, 600_000), 150_000),
        (0, 1_000_000, Price(150_000, 600_000), 600_000),
        (1, 0, Price(499_999, 0), 0),
        (1, 0, Price(500_000, 0), 1),
        (1, 1, Price(250_000, 250_000), 1),
        (3, 0, Price(500_000, 0), 2),
    ],
)
def test_the_sum_is_rounded_once_half_up(prompt: int, completion: int, price: Price, micros: int) -> None:
    assert cost_micros(TokenUsage(prompt, completion), price) == micros


@given(TOKENS, TOKENS, PRICES)
def test_the_cost_is_the_nearest_micro_unit(prompt: int, completion: int, price: Price) -> None:
    exact = Fraction(prompt * price.input_micros + completion * price.output_micros, 10**6)
    cost = tokens_micros(prompt, completion, price)
    assert Fraction(-1, 2) <= exact - cost < Fraction(1, 2)


@given(TOKENS, TOKENS, TOKENS, st.sampled_from(TokenSource), PRICES)
def test_where_the_tokens_come_from_changes_nothing(
    prompt: int, completion: int, cached: int, source: TokenSource, price: Price
) -> None:
    told = cost_micros(TokenUsage(prompt, completion, cached, source), price)
    assert told == cost_micros(TokenUsage(prompt, completion), price)


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (12_345_678, "12.345678"), (-100_000, "-0.10")],
)
def test_micro_units_in_words(micros: int, text: str) -> None:
    assert decimal_text(micros) == text
