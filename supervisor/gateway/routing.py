"""Which model `auto` and the tiers mean (`contracts.md` §4). Pure: functions of the rules, the request and what is left of the budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from supervisor.config.routing_settings import AUTO, TWINS, RoutingRule, RoutingSettings
from supervisor.gateway.accounting.callers import Caller

# The usual figure for text; the router needs no better one, and has no tokenizer before it has a model.
CHARACTERS_A_TOKEN = 4
# What a prompt asks for stands near its beginning; what is pasted below may be megabytes.
READ_CHARACTERS = 10_000
ROUTED_NAMES = frozenset({AUTO, *TWINS})


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be answered: the prompt, and the size of everything that goes to the model, in tokens."""

    prompt: str
    context_tokens: int


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """What a caller has used in the present period, and what is left.

    `limit` and `remaining` are tokens, None: no limit. `cost_micros` is None when nobody knows.
    """

    total_tokens: int = 0
    cost_micros: int | None = None
    limit: int | None = None
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: `choice` (a tier or a model's name) means `model` (None: the default instance), for that `reason`."""

    choice: str
    model: str | None
    reason: str

    @property
    def header(self) -> str:
        """The value of `x-llamavisor-route`: printable ASCII."""
        return f"{self.choice}; {self.reason}"


def decide(settings: RoutingSettings, question: Question, remaining: int | None) -> Route:
    """What `auto` means for a question, with so many tokens of the budget left (None: no limit; 0 is none left)."""
    for rule in settings.rules:
        if applies(rule, question, remaining):
            return Route(rule.model, model_of(settings, rule.model), rule.reason)
    return Route(settings.default, model_of(settings, settings.default), "no rule applies")


def applies(rule: RoutingRule, question: Question, remaining: int | None) -> bool:
    """Whether every condition of a rule holds."""
    if rule.remaining_below is not None and (remaining is None or remaining >= rule.remaining_below):
        return False
    if rule.context_above is not None and question.context_tokens <= rule.context_above:
        return False
    if rule.prompt_shorter_than is not None and len(question.prompt) >= rule.prompt_shorter_than:
        return False
    return not rule.words or _any_of(rule.words).search(question.prompt, 0, READ_CHARACTERS) is not None


def model_of(settings: RoutingSettings, choice: str) -> str | None:
    """What a tier means; of any other name, itself. None: the default instance."""
    return settings.tiers.model_of(choice) if choice in TWINS else choice


def question_of(document: Mapping[str, Any]) -> Question:
    """The question in a request of any surface: its last text from the user is the prompt, all its text the context."""
    texts = list(_texts(document))
    asked = next((text for is_users, text in reversed(texts) if is_users), "")
    return Question(asked, sum(len(text) for _, text in texts) // CHARACTERS_A_TOKEN)


class Router:
    """The decisions over the settings in force. `names` are taken already: an instance that is called `small` is what `small` means.

    `status_of` tells what a caller has left.
    """

    def __init__(
        self,
        settings: Callable[[], RoutingSettings],
        names: Callable[[], Container[str]],
        status_of: Callable[[Caller], BudgetStatus],
    ) -> None:
        self._settings = settings
        self._names = names
        self.status_of = status_of

    def route(self, document: Mapping[str, Any], caller: Caller) -> Route | None:
        """Where a request goes that names a tier or `auto`; None: it names something else, or nothing."""
        name = document.get("model")
        if not isinstance(name, str) or name not in ROUTED_NAMES or name in self._names():
            return None
        if name == AUTO:
            return self.choose(question_of(document), caller)
        return Route(name, model_of(self._settings(), name), "the tier that was asked for")

    def route_of(self, model: str | None, question: Question, caller: Caller) -> Route:
        """Where a question of that caller goes that is put to `model` (None: `auto`)."""
        if model is None or (model == AUTO and AUTO not in self._names()):
            return self.choose(question, caller)
        return self.route({"model": model}, caller) or Route(model, model, "the model that was asked for")

    def choose(self, question: Question, caller: Caller) -> Route:
        """What `auto` means for a question of that caller."""
        return decide(self._settings(), question, self.status_of(caller).remaining)


def rerouted(document: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """The request with the model that the router chose."""
    kept = {name: value for name, value in document.items() if name != "model"}
    return kept if route.model is None else {**kept, "model": route.model}


@lru_cache(maxsize=256)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _texts(document: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Every text of a request, and whether it is the user's."""
    for name in ("system", "instructions"):
        yield from ((False, text) for text in _pieces(document.get(name)))
    for name in ("messages", "prompt", "input"):
        given = document.get(name)
        for turn in given if isinstance(given, list) else [given]:
            if isinstance(turn, dict):
                yield from ((turn.get("role") == "user", text) for text in _pieces(turn.get("content")))
            elif isinstance(turn, str):
                yield True, turn


def _pieces(content: object) -> Iterator[str]:
    for piece in content if isinstance(content, list) else [content]:
        text = piece.get("text") if isinstance(piece, dict) else piece
        if isinstance(text, str):
            yield text
