"""The router's decisions: the rules of the contract in their order, tiers, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import ConfigError, Settings, validate_tree
from supervisor.config.routing_settings import TWINS, RoutingSettings
from supervisor.gateway.accounting.callers import ANYONE
from supervisor.gateway.routing import (
    CHARACTERS_A_TOKEN,
    READ_CHARACTERS,
    BudgetStatus,
    Question,
    Router,
    decide,
    question_of,
    rerouted,
)

DEFAULT = RoutingSettings()
LONG = "and then tell me at length what you think of it all, " * 3


@pytest.mark.parametrize(
    ("prompt", "context", "remaining", "choice"),
    [
        # Little is left: before everything else. Exactly nothing is little; no limit is not.
        ("analyze this", 20_000, 999, "small"),
        ("hello", 10, 0, "small"),
        ("hello", 10, 1_000, "medium"),
        ("hello", 10, None, "medium"),
        # A large context comes before what the prompt says.
        ("list the files", 10_001, None, "large"),
        ("list the files", 10_000, None, "small"),
        # Short and simple.
        *(
            (f"Please {word} the files", 10, None, "small")
            for word in ("list", "FORMAT", "count", "Show", "get", "add")
        ),
        ("create", 10, None, "small"),
        (f"list the files {LONG}", 10, None, "medium"),
        (f"{'x' * 94} list", 10, None, "small"),
        (f"{'x' * 95} list", 10, None, "medium"),
        # A word is a word, not a part of one.
        ("What is my address? Is the country listed? Together!", 10, None, "medium"),
        ("get-it", 10, None, "small"),
        # Demanding: medium, or small where the budget does not allow it.
        *((f"{word} it", 10, 5_000, "medium") for word in ("analyze", "architect", "debug", "design", "implement")),
        *((f"{word} it", 10, 4_999, "small") for word in ("optimize", "refactor", "review", "test", "diagnose")),
        ("a strategy", 10, 4_999, "small"),
        ("a strategy", 10, None, "medium"),
        # A short prompt that is both is simple: that rule comes first.
        ("list and analyze", 10, None, "small"),
        ("", 0, None, "medium"),
    ],
)
def test_the_rules_of_the_contract(prompt: str, context: int, remaining: int | None, choice: str) -> None:
    assert decide(DEFAULT, Question(prompt, context), remaining).choice == choice


def test_each_rule_gives_its_reason() -> None:
    settled = {
        decide(DEFAULT, Question(prompt, context), remaining).reason
        for prompt, context, remaining in (("x", 0, 0), ("x", 10_001, None), ("get", 0, None), ("test", 0, 4_999))
    }
    assert len(settled) == 4
    assert decide(DEFAULT, Question("Hello", 0), None).reason == "no rule applies"


def test_only_the_beginning_of_a_long_prompt_is_searched() -> None:
    padding = "x " * (READ_CHARACTERS // 2)
    rules = [{"words": ["needle"], "model": "large", "reason": "found"}]
    settings = RoutingSettings.model_validate({"rules": rules})
    assert decide(settings, Question(f"needle {padding}", 0), None).choice == "large"
    assert decide(settings, Question(f"{padding}needle", 0), None).choice == "medium"


@given(
    prompt=st.text(max_size=200),
    context=st.integers(0, 20_000),
    remaining=st.none() | st.integers(0, 10_000),
)
def test_there_is_always_a_choice_and_its_header_is_safe(prompt: str, context: int, remaining: int | None) -> None:
    route = decide(DEFAULT, Question(prompt, context), remaining)
    assert route.choice in TWINS
    assert route.model is None
    assert route.header.isascii()
    assert route.header.isprintable()


@pytest.mark.parametrize(
    ("tiers", "meanings"),
    [
        ({}, dict.fromkeys(TWINS)),
        ({"opus": "big"}, {"opus": "big", "large": "big", "small": None}),
        ({"small": "tiny", "haiku": "lamp"}, {"small": "tiny", "haiku": "lamp", "medium": None}),
    ],
)
def test_tiers_and_their_twins(tiers: dict[str, str], meanings: dict[str, str | None]) -> None:
    settings = RoutingSettings.model_validate({"tiers": tiers})
    router = Router(lambda: settings, lambda: (), lambda _: BudgetStatus())
    for tier, meaning in meanings.items():
        route = router.route({"model": tier}, ANYONE)
        assert route is not None
        assert (route.choice, route.model) == (tier, meaning)


def test_what_is_left_of_the_callers_budget_counts() -> None:
    settings = RoutingSettings.model_validate({"tiers": {"small": "tiny"}})
    left = {"remaining": 0}
    router = Router(lambda: settings, lambda: (), lambda _: BudgetStatus(limit=10, remaining=left["remaining"]))
    auto = {"model": "auto", "messages": [{"role": "user", "content": "Tell me a story"}]}
    route = router.route(auto, ANYONE)
    assert route is not None
    assert (route.choice, route.model) == ("small", "tiny")
    left["remaining"] = 10**6
    route = router.route(auto, ANYONE)
    assert route is not None
    assert route.choice == "medium"


@pytest.mark.parametrize("model", [None, "", "llama", "AUTO", 7, ["auto"]])
def test_other_names_are_left_alone(model: Any) -> None:
    router = Router(lambda: DEFAULT, lambda: (), lambda _: BudgetStatus())
    assert router.route({"model": model}, ANYONE) is None


def test_an_instance_of_that_name_is_what_is_meant() -> None:
    router = Router(lambda: DEFAULT, lambda: {"auto", "opus"}, lambda _: BudgetStatus())
    assert router.route({"model": "auto"}, ANYONE) is None
    assert router.route({"model": "opus"}, ANYONE) is None
    assert router.route({"model": "large"}, ANYONE) is not None


@pytest.mark.parametrize(
    ("document", "prompt", "characters"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "one", 6),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image_url"}]}]},
            "one",
            3,
        ),
        ({"system": "zero", "messages": [{"role": "user", "content": "one"}]}, "one", 7),
        ({"prompt": "one"}, "one", 3),
        ({"prompt": ["one", "two"]}, "two", 6),
        ({"prompt": [1, 2]}, "", 0),
        ({"input": "one", "instructions": "zero"}, "one", 7),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "one"}]}]}, "one", 3),
        ({}, "", 0),
        ({"messages": "x" * 4_000, "prompt": None, "input": 7}, "x" * 4_000, 4_000),
    ],
)
def test_the_question_in_a_request(document: dict[str, Any], prompt: str, characters: int) -> None:
    assert question_of(document) == Question(prompt, characters // CHARACTERS_A_TOKEN)


def test_a_request_is_sent_where_the_router_says_and_otherwise_unchanged() -> None:
    settings = RoutingSettings.model_validate({"tiers": {"opus": "big"}})
    router = Router(lambda: settings, lambda: (), lambda _: BudgetStatus())
    for model, expected in (("opus", {"model": "big", "top_k": 3}), ("haiku", {"top_k": 3})):
        route = router.route({"model": model}, ANYONE)
        assert route is not None
        assert rerouted({"model": model, "top_k": 3}, route) == expected


@pytest.mark.parametrize(
    ("routing", "key"),
    [
        ({"tiers": {"opus": "sonnet"}}, "routing.tiers.opus"),
        ({"tiers": {"opus": "a\nb"}}, "routing.tiers.opus"),
        ({"tiers": {"opsu": "a"}}, "routing.tiers.opsu"),
        ({"rules": [{"model": "small", "reason": "always"}]}, "routing.rules[0].model"),
        ({"rules": [{"words": ["a"], "model": "auto", "reason": "r"}]}, "routing.default"),
        ({"rules": [{"words": ["a"], "model": "small", "reason": "é"}]}, "routing.rules[0].reason"),
        ({"rules": [{"remaining_below": -1, "model": "small", "reason": "r"}]}, "routing.rules[0].remaining_below"),
        ({"default": "auto"}, "routing.default"),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_their_key(routing: Any, key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate_tree({"routing": routing})
    assert [problem.key for problem in refusal.value.problems] == [key]


def test_rules_are_data() -> None:
    rules = [{"words": ["please", "thank you"], "context_above": 5, "model": "polite", "reason": "manners"}]
    settings = Settings.model_validate({"routing": {"rules": rules, "default": "large"}}).routing
    assert decide(settings, Question("THANK YOU!", 6), None).model == "polite"
    assert decide(settings, Question("thank you", 5), None).choice == "large"
