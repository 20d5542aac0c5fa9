"""What the names in the configuration mean: as tables, without a process."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.config.settings import Settings
from supervisor.gateway.names import Names

MODEL = {"model": "demo"}
HOUSE = {
    "c1": {**MODEL, "endpoint": "chat", "aliases": ["gpt"]},
    "c2": {**MODEL, "endpoint": "chat"},
    "solo": {**MODEL, "aliases": ["alone"]},
    "twin": {**MODEL, "endpoint": "solo"},
}


def names(instances: dict[str, Any] = HOUSE, /, **fallbacks: list[str]) -> Names:
    """Those of a configuration."""
    return Names(Settings.model_validate({"instances": instances, "gateway": {"fallbacks": fallbacks}}))


@pytest.mark.parametrize(
    ("model", "instances", "endpoint"),
    [
        (None, ["c1", "c2"], "chat"),
        ("chat", ["c1", "c2"], "chat"),
        ("gpt", ["c1", "c2"], "chat"),
        ("c1", ["c1"], "chat"),
        ("c2", ["c2"], "chat"),
        ("solo", ["solo", "twin"], "solo"),
        ("alone", ["solo", "twin"], "solo"),
        ("twin", ["twin"], "solo"),
    ],
)
def test_a_name_means_all_of_an_endpoint_or_the_one_instance(
    model: str | None, instances: list[str], endpoint: str
) -> None:
    found = names()
    assert found.instances(model) == instances
    assert found.endpoint(model, instances[0]) == endpoint
    assert model in found


def test_what_is_not_in_the_configuration_is_not_known_here() -> None:
    assert names().instances("demo.Q8_0") == []
    assert "demo.Q8_0" not in names()
    assert names().endpoint("demo.Q8_0", "c1") == "demo.Q8_0"
    assert (names({}).instances(None), names({}).fallbacks(None, "gone")) == ([], ())


@pytest.mark.parametrize("key", ["chat", "gpt"])
@pytest.mark.parametrize("word", ["solo", "alone"])
def test_a_chain_is_that_of_the_endpoint_by_whatever_name(key: str, word: str) -> None:
    found = names(**{key: [word]})
    for model in ("chat", "gpt", None, "an id of a model"):
        assert found.fallbacks(model, "c1") == ("solo",), model
    assert found.fallbacks("solo", "solo") == ()


def test_who_names_an_instance_means_no_other_unless_it_has_a_chain_of_its_own() -> None:
    assert names(chat=["solo"]).fallbacks("c1", "c1") == ()
    found = names(chat=["solo"], c1=["c2"])
    assert found.fallbacks("c1", "c1") == ("c2",)
    assert found.fallbacks("gpt", "c1") == ("solo",)


def test_a_price_is_looked_for_under_the_names_of_the_endpoint_the_instance_and_the_model() -> None:
    assert names().priced_as("c2") == ("chat", "gpt", "c2", "demo")
    assert names().priced_as("twin") == ("solo", "alone", "twin", "demo")
    assert names().priced_as("gone") == ("gone",)
