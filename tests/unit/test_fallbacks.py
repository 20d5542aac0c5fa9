"""Fallbacks: the order in which models stand in for one another, circles refused; and the other rules of the gateway's settings."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ConfigError, Settings, diff_settings, validate_tree
from supervisor.config.gateway_settings import GatewaySettings, find_loop
from supervisor.errors import InvalidConfigurationError
from supervisor.gateway.admission.queue import BATCH_TURN
from supervisor.gateway.fallbacks import fallback_order
from tests.fixtures.doc_tables import DOCS

CHAINS = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), max_size=6)
TWO = {"big": {"model": "demo"}, "small": {"model": "demo"}}


@pytest.mark.parametrize(
    ("name", "chains", "order"),
    [
        ("a", {}, "a"),
        ("a", {"a": ["b", "c"]}, "abc"),
        ("a", {"a": ["b", "c"], "b": ["d"]}, "abdc"),
        ("a", {"a": ["b", "c"], "b": ["c"]}, "abc"),
        ("b", {"a": ["b", "c"]}, "b"),
    ],
)
def test_fallbacks_come_in_their_order_each_once(name: str, chains: dict[str, list[str]], order: str) -> None:
    assert fallback_order(name, chains) == tuple(order)


@given(CHAINS)
def test_a_circle_is_found_exactly_where_there_is_one(chains: dict[str, list[str]]) -> None:
    try:
        TopologicalSorter(chains).prepare()
    except CycleError:
        loop = find_loop(chains)
        assert loop is not None
        assert loop[0] == loop[-1]
        assert all(after in chains[before] for before, after in pairwise(loop))
        with pytest.raises(InvalidConfigurationError, match=r"circle"):
            fallback_order("a", chains)
    else:
        assert find_loop(chains) is None
        for name in "abcdef":
            order = fallback_order(name, chains)
            assert order[0] == name
            assert len(order) == len(set(order))


def test_a_chain_longer_than_the_stack_is_no_problem() -> None:
    chains = {str(number): [str(number + 1)] for number in range(5_000)}
    assert find_loop(chains) is None
    assert len(fallback_order("0", chains)) == 5_001


@pytest.mark.parametrize(
    ("gateway", "key", "text"),
    [
        ({"fallbacks": {"big": ["small"], "small": ["big"]}}, "gateway.fallbacks.big", "big → small → big"),
        ({"fallbacks": {"big": ["big"]}}, "gateway.fallbacks.big", "big → big"),
        ({"fallbacks": {"big": ["smal"]}}, "gateway.fallbacks.big", "did you mean `small`?"),
        ({"fallbacks": {"bigg": ["small"]}}, "gateway.fallbacks.bigg", "did you mean `big`?"),
        ({"eject_seconds": 400}, "gateway.eject_seconds", "above `eject_max_seconds`"),
        ({"queue_limit": 0}, "gateway.queue_limit", "at least 1"),
        ({"in_flight_per_slot": 0}, "gateway.in_flight_per_slot", "above 0"),
    ],
)
def test_a_bad_setting_of_the_gateway_is_refused_with_its_key(gateway: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate_tree({"instances": TWO, "gateway": gateway})
    told = {problem.key: str(problem) for problem in refusal.value.problems}
    assert text in told[key]


def test_settings_of_the_gateway_take_effect_without_a_restart() -> None:
    old, new = (
        Settings.model_validate({"instances": TWO, "gateway": gateway})
        for gateway in ({}, {"queue_limit": 3, "fallbacks": {"big": ["small"]}})
    )
    diff = diff_settings(old, new)
    assert diff.live_changed == ("gateway.queue_limit", "gateway.fallbacks")
    assert not diff.server_changed


def test_the_page_on_queueing_names_every_setting() -> None:
    page = (DOCS / "explanation" / "queueing.md").read_text(encoding="utf-8")
    assert {key for key in GatewaySettings.model_fields if f"`gateway.{key}`" not in page} == set()
    assert BATCH_TURN == 16
    assert "every sixteenth place is theirs" in page
