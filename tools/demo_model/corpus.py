"""The corpus: endless small conversations from the template grammar, and the held-out cases for the evaluation."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TypedDict

from .grammar import Exchange, Fragment, Intent, Scoring, sample_kept, sentence_case, single
from .intents_knowledge import KNOWLEDGE_INTENTS
from .intents_product import PRODUCT_INTENTS
from .intents_stories import STORY_INTENTS
from .intents_talk import NAME_QUESTIONS, TALK_INTENTS, UNKNOWN_NAME
from .intents_unknown import UNKNOWN_INTENTS

INTENTS: tuple[Intent, ...] = KNOWLEDGE_INTENTS + PRODUCT_INTENTS + TALK_INTENTS + STORY_INTENTS + UNKNOWN_INTENTS

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a friendly demo model.",
    "You are the demo model of Llamavisor.",
    "Answer briefly.",
    "Be kind and answer in simple words.",
)
SYSTEM_SHARE = 0.4
LONG_SHARE = 0.015
"""Share of conversations with many turns, which teach the model to look far back and to ignore what is there."""
LONG_TURNS = (12, 22)
UNKNOWN_NAME_SHARE = 0.02

CASES_PER_INTENT = 40
CASE_DRAWS = 6000
"""Draws in search of held-out cases; intents with few prompts have fewer cases than wished for."""


LONG_CASES = 40
LONG_CASE_FRAGMENTS = 30
"""Enough talk before the question to leave behind every distance that the training has seen."""


class Message(TypedDict):
    """One message of a conversation, as in the OpenAI API."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out prompt with the conversation before it, and the answer it should get."""

    intent: str
    scoring: Scoring
    messages: tuple[Message, ...]
    answer: str


def conversations(seed: int) -> Iterator[list[Message]]:
    """Yield conversations for ever; the same seed yields the same ones. None contains a held-out prompt."""
    rng = Random(seed)
    while True:
        yield _conversation(rng)


def cases(seed: int) -> list[Case]:
    """Return the held-out cases of every scored intent, without repetitions, and some again after a long chat."""
    rng = Random(seed)
    fresh = [
        case for intent in INTENTS if intent.scoring is not None for case in _cases_of(rng, intent, intent.scoring)
    ]
    return fresh + [_after_long_chat(rng, case) for case in rng.sample(fresh, LONG_CASES)]


def write_corpus(path: Path, seed: int, count: int) -> None:
    """Write `count` conversations as JSON lines, each `{"messages": [{"role", "content"}]}`."""
    source = conversations(seed)
    _write_lines(path, ({"messages": next(source)} for _ in range(count)))


def write_cases(path: Path, seed: int) -> None:
    """Write the held-out cases as JSON lines with the fields of `Case`."""
    _write_lines(path, (asdict(case) for case in cases(seed)))


def read_corpus(path: Path) -> list[list[Message]]:
    """Read what `write_corpus` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["messages"] for line in lines]


def read_cases(path: Path) -> list[Case]:
    """Read what `write_cases` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [Case(**{**fields, "messages": tuple(fields["messages"])}) for fields in map(json.loads, lines)]


def as_messages(fragment: Fragment) -> list[Message]:
    """Return the user's and the assistant's messages of a fragment, in order."""
    return [message for exchange in fragment for message in _messages_of(exchange)]


def _conversation(rng: Random) -> list[Message]:
    opening = _unknown_name(rng) if rng.random() < UNKNOWN_NAME_SHARE else ()
    fragments = [opening, *(_any_fragment(rng) for _ in range(_turns(rng)))]
    system: list[Message] = []
    if rng.random() < SYSTEM_SHARE:
        system = [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}]
    return system + [message for fragment in fragments for message in as_messages(fragment)]


def _turns(rng: Random) -> int:
    return rng.randint(*LONG_TURNS) if rng.random() < LONG_SHARE else rng.choice((1, 1, 2, 2, 3))


def _unknown_name(rng: Random) -> Fragment:
    # Only ever at the beginning: later in a conversation the name may have been told.
    return single(rng.choice(NAME_QUESTIONS), UNKNOWN_NAME)


_WEIGHTS = [intent.weight for intent in INTENTS]


def _any_fragment(rng: Random) -> Fragment:
    fragment = sample_kept(rng, rng.choices(INTENTS, _WEIGHTS)[0])
    return tuple(Exchange(_as_typed(rng, exchange.prompt), exchange.answer) for exchange in fragment)


def _as_typed(rng: Random, prompt: str) -> str:
    """Return the prompt as a hasty person types it: other case, no end mark, a word of politeness."""
    style = rng.random()
    if style < 0.1:
        prompt = f"{rng.choice(('Please, ', 'Hey, ', 'OK, ', 'And '))}{prompt[:1].lower()}{prompt[1:]}"
    elif style < 0.14:
        prompt = f"{prompt.rstrip('.?!')}{rng.choice((', please', ' please', '??', '!', ' ?'))}"
    if rng.random() < 0.2:
        prompt = prompt.lower()
    elif rng.random() < 0.1:
        prompt = sentence_case(prompt)
    return prompt.rstrip(".?!") if rng.random() < 0.2 else prompt


def _cases_of(rng: Random, intent: Intent, scoring: Scoring) -> Iterator[Case]:
    seen: set[tuple[str, ...]] = set()
    for _ in range(CASE_DRAWS):
        fragment = intent.sample(rng)
        prompts = tuple(exchange.prompt.lower() for exchange in fragment)
        if fragment[-1].is_held_out() and prompts not in seen:
            seen.add(prompts)
            yield Case(intent.name, scoring, tuple(as_messages(fragment)[:-1]), fragment[-1].answer)
        if len(seen) == CASES_PER_INTENT:
            return


def _after_long_chat(rng: Random, case: Case) -> Case:
    before = [message for _ in range(LONG_CASE_FRAGMENTS) for message in as_messages(_any_fragment(rng))]
    return Case("any, after a long chat", case.scoring, (*before, *case.messages), case.answer)


def _messages_of(exchange: Exchange) -> tuple[Message, Message]:
    return {"role": "user", "content": exchange.prompt}, {"role": "assistant", "content": exchange.answer}


def _write_lines(path: Path, items: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
