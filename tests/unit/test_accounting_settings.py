"""Prices are exact decimals however they are written, and everything else of the books has sensible bounds."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ConfigError, Settings, diff_settings, load_settings, settings_tree, validate_tree


def priced(value: object) -> Settings:
    """Settings in which the model `m` has this price for prompts."""
    return validate_tree({"accounting": {"prices": {"m": {"input": value, "output": 0}}}})


def micros_of(settings: Settings) -> int:
    """The price of a million prompt tokens of `m`."""
    return settings.accounting.prices["m"].input_micros


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        (0, 0),
        (3, 3_000_000),
        (0.1, 100_000),
        (0.000001, 1),
        (0.29, 290_000),
        ("0.15", 150_000),
        ("12.345678", 12_345_678),
        ("999999999", 999_999_999_000_000),
    ],
)
def test_a_price_is_what_was_written(written: object, micros: int) -> None:
    assert micros_of(priced(written)) == micros


@pytest.mark.parametrize("written", [True, -1, "-1", "1e3", "", ".5", "x", 1e9, None, [], float("nan"), float("inf")])
def test_what_is_no_price_is_refused_by_its_key(written: object) -> None:
    with pytest.raises(ConfigError, match=r"accounting\.prices\.m\.input.*must be a number from 0"):
        priced(written)


@pytest.mark.parametrize("written", [1e-7, "0.1234567"])
def test_a_price_finer_than_a_micro_unit_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match="more than six digits"):
        priced(written)


@given(st.integers(0, 999_999_999_999_999))
def test_every_micro_unit_can_be_written(micros: int) -> None:
    text = f"{Decimal(micros) / 1_000_000:f}"
    settings = priced(text)
    assert micros_of(settings) == micros
    assert micros_of(validate_tree(settings_tree(settings))) == micros


@given(st.integers(0, 10**9))
def test_a_binary_fraction_means_the_decimal_that_was_written(micros: int) -> None:
    assert micros_of(priced(micros / 1_000_000)) == micros


def test_every_format_reads_prices_alike(tmp_path: Path) -> None:
    texts = {
        "json": '{"accounting": {"prices": {"a/b": {"input": 0.15, "output": "0.6"}}}}',
        "yaml": 'accounting: {prices: {a/b: {input: 0.15, output: "0.6"}}}',
        "toml": '[accounting.prices."a/b"]\ninput = 0.15\noutput = "0.6"\n',
    }
    read = []
    for suffix, text in texts.items():
        path = tmp_path / f"config.{suffix}"
        path.write_text(text, encoding="utf-8")
        read.append(load_settings(path, environ={}).settings.accounting)
    assert read[0] == read[1] == read[2]
    assert read[0].prices["a/b"].output_micros == 600_000


def test_the_environment_gives_prices_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}", encoding="utf-8")
    environ = {
        "LLAMAVISOR_ACCOUNTING__PRICES": '{"m": {"input": "0.5", "output": 1}}',
        "LLAMAVISOR_ACCOUNTING__LIMITS__KEY__CONCURRENCY": "4",
    }
    accounting = load_settings(path, environ=environ).settings.accounting
    assert accounting.prices["m"].input_micros == 500_000
    assert accounting.limits.key.concurrency == 4


@pytest.mark.parametrize(
    "tree",
    [
        {"currency": ""},
        {"currency": "two words"},
        {"prices": {"": {"input": 1, "output": 1}}},
        {"prices": {"m": {"input": 1}}},
        {"limits": {"key": {"concurrency": 0}}},
        {"limits": {"project": {"tokens_per_minute": -1}}},
        {"reservation": {"percentile": 101}},
        {"reservation": {"bytes_per_token": 0}},
    ],
)
def test_bounds(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        validate_tree({"accounting": tree})


def test_a_change_is_live() -> None:
    changed = diff_settings(
        Settings(), validate_tree({"accounting": {"currency": "EUR"}, "instances": {"demo": {"model": "demo"}}})
    )
    assert changed.live_changed == ("accounting.currency",)
    assert not changed.server_changed
