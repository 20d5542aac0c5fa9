"""Figures as people read them, and text that cannot harm a terminal."""

import pytest

from supervisor.cli.books import key_changes, limit_changes, micros
from supervisor.cli.formatting import duration, moment, money, price, quantity, size
from supervisor.cli.outcome import UsageProblemError
from supervisor.cli.output import printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3_599, "59 min 59 s"),
        (7_620, "2 h 07 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (4_700_000_000, "4.7 GB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_size(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, "–"), (0, "0"), (950, "950"), (984_192, "984.2K"), (8_030_261_248, "8.0B")]
)
def test_quantity(count: float | None, words: str) -> None:
    assert quantity(count) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [(None, "–"), (0, "0.00"), (100_000, "0.10"), (1, "0.000001"), (1_234_500_000, "1,234.50"), (-5_000_000, "-5.00")],
)
def test_money(amount: int | None, words: str) -> None:
    assert money(amount) == words


@pytest.mark.parametrize(("amount", "exact"), [("20", 20_000_000), ("0.1", 100_000), ("0.000001", 1), ("0", 0)])
def test_money_as_people_write_it_is_exact(amount: str, exact: int) -> None:
    assert micros(amount) == exact


@pytest.mark.parametrize("amount", ["-1", "0.0000001", "ten", "", "NaN", "Infinity", "1e40"])
def test_what_is_no_money_is_refused(amount: str) -> None:
    with pytest.raises(UsageProblemError, match="amount of money"):
        micros(amount)


def test_a_limit_is_a_number_or_the_default() -> None:
    assert limit_changes("60", None, "default") == {"requests_per_minute": 60, "concurrency": None}
    assert limit_changes(None, None, None) == {}


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "", "ten", "٣", "9" * 16, "9" * 5_000])
def test_what_is_no_limit_is_refused(limit: str) -> None:
    with pytest.raises(UsageProblemError, match="is no limit"):
        limit_changes(None, limit, None)


def test_only_what_is_named_of_a_key_is_changed() -> None:
    assert key_changes(None, {}, days=None, no_expiry=False) == {}
    assert key_changes("", {"concurrency": 1}, days=None, no_expiry=True) == {
        "label": "",
        "expires_at": None,
        "limits": {"concurrency": 1},
    }
    with pytest.raises(UsageProblemError, match="--no-expiry"):
        key_changes(None, {}, days=1, no_expiry=True)


def test_moment() -> None:
    assert moment("2026-01-02T15:04:05.678Z") == "2026-01-02 15:04Z"
    assert moment(None) == "–"


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "naïve – 中文", "👩‍🚀 ❤️", "1\u202f000\u00a0€"])
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_what_could_rewrite_the_terminal_is_spelt_out() -> None:
    assert printable("\x1b[2Ja\rb\x07\u202ec\x9bd\U000e0041") == "\\x1b[2Ja\\x0db\\x07\\u202ec\\x9bd\\U000e0041"


@pytest.mark.parametrize(
    ("micros", "unpriced", "words"),
    [(0, 0, "0.00 EUR"), (0, 2, "–"), (436, 0, "0.000436 EUR"), (436, 1, "0.000436 EUR + ?")],
)
def test_a_price_that_is_not_known_is_not_zero(micros: int, unpriced: int, words: str) -> None:
    assert price(micros, "EUR", unpriced) == words
