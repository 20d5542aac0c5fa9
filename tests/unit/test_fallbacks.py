"""Fallbacks: the order in which models stand in for one another, circles refused, names checked."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ConfigError, Settings, diff_settings, validate_tree
from supervisor.config.gateway_settings import find_loop
from supervisor.gateway.fallbacks import fallback_order

CHAINS = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), max_size=6)
TWO = {"big": {"model": "demo", "aliases": ["large"]}, "small": {"model": "demo"}}


@pytest.mark.parametrize(
    ("name", "chains", "order"),
    [
        ("a", {}, ""),
        ("a", {"a": ["b", "c"]}, "bc"),
        ("a", {"a": ["b", "c"], "b": ["d"]}, "bdc"),
        ("a", {"a": ["b", "c"], "b": ["c"]}, "bc"),
        ("b", {"a": ["b", "c"]}, ""),
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
    else:
        assert find_loop(chains) is None


@given(CHAINS)
def test_every_name_is_tried_at_most_once_and_never_the_one_that_failed(chains: dict[str, list[str]]) -> None:
    for name in "abcdef":
        order = fallback_order(name, chains)
        assert len({name, *order}) == len(order) + 1


def test_a_chain_longer_than_the_stack_is_no_problem() -> None:
    chains = {str(number): [str(number + 1)] for number in range(5_000)}
    assert find_loop(chains) is None
    assert len(fallback_order("0", chains)) == 5_000


@pytest.mark.parametrize(
    ("fallbacks", "key", "text"),
    [
        ({"big": ["small"], "small": ["big"]}, "gateway.fallbacks.big", "big → small → big"),
        ({"big": ["big"]}, "gateway.fallbacks.big", "big → big"),
        ({"big": ["small"], "small": ["large"]}, "gateway.fallbacks.big", "big → small → big"),
        ({"large": ["small"], "big": ["small"]}, "gateway.fallbacks.big", "`big` and `large` mean the same"),
        ({"big": ["smal"]}, "gateway.fallbacks.big", "did you mean `small`?"),
        ({"bigg": ["small"]}, "gateway.fallbacks.bigg", "did you mean `big`?"),
    ],
)
def test_chains_that_lead_nowhere_are_refused(fallbacks: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate_tree({"instances": TWO, "gateway": {"fallbacks": fallbacks}})
    told = {problem.key: str(problem) for problem in refusal.value.problems}
    assert text in told[key]


def test_they_may_be_named_by_alias_and_take_effect_at_once() -> None:
    old, new = (
        Settings.model_validate({"instances": TWO, "gateway": gateway})
        for gateway in ({}, {"fallbacks": {"large": ["small"]}})
    )
    assert diff_settings(old, new).live_changed == ("gateway.fallbacks",)
