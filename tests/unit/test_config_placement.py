"""The rules of on-demand start, groups and names: what contradicts itself is refused with its key."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.config import ConfigError, InstanceSettings, Settings, validate_tree
from supervisor.config.placement_settings import GroupSettings

MODEL = {"model": "demo"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, False),
        ({"autostart": False}, True),
        ({"ttl_seconds": 5.0}, True),
        ({"on_demand": True}, True),
        ({"autostart": False, "on_demand": False}, False),
    ],
)
def test_what_is_on_demand(given: dict[str, Any], expected: bool) -> None:
    settings = InstanceSettings.model_validate(MODEL | given)
    assert settings.is_on_demand is expected


def test_ready_does_not_wait_for_what_may_be_unloaded() -> None:
    assert InstanceSettings(model="demo").is_required
    assert not InstanceSettings(model="demo", ttl_seconds=5.0).is_required
    assert InstanceSettings(model="demo", ttl_seconds=5.0, required=True).is_required


@pytest.mark.parametrize(
    ("given", "limit"),
    [({}, 1), ({"max_loaded": 2}, 2), ({"exclusive": False}, None), ({"exclusive": True, "max_loaded": 1}, 1)],
)
def test_how_many_a_group_allows(given: dict[str, Any], limit: int | None) -> None:
    assert GroupSettings.model_validate(given).limit == limit


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ttl without a way back": (
        {"instances": {"a": MODEL | {"on_demand": False, "ttl_seconds": 5}}},
        "instances.a.ttl_seconds",
    ),
    "a group that is not there": (
        {"groups": {"big": {}}, "instances": {"a": MODEL | {"group": ["bigg"]}}},
        "instances.a.group",
    ),
    "exclusive for several": ({"groups": {"big": {"exclusive": True, "max_loaded": 2}}}, "groups.big.max_loaded"),
    "more started than allowed": (
        {"groups": {"big": {}}, "instances": {name: MODEL | {"group": ["big"]} for name in "ab"}},
        "groups.big",
    ),
    "an alias that is an instance": (
        {"instances": {"a": MODEL | {"aliases": ["b"]}, "b": MODEL}},
        "instances.a.aliases",
    ),
    "an endpoint that is an alias": (
        {"instances": {"a": MODEL | {"aliases": ["x"]}, "b": MODEL | {"endpoint": "x"}}},
        "instances.b.endpoint",
    ),
}


@pytest.mark.parametrize(("tree", "key"), REFUSED.values(), ids=REFUSED.keys())
def test_contradictions_are_refused_with_their_key(tree: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate_tree(tree)
    assert [problem.key for problem in refusal.value.problems] == [key]


def test_replicas_share_their_names() -> None:
    replica = MODEL | {"endpoint": "chat", "aliases": ["gpt-4"]}
    settings = Settings.model_validate({"instances": {"one": replica, "two": replica}})
    assert {own.endpoint for own in settings.instances.values()} == {"chat"}
