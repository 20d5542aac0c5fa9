"""The words in which the corpus is described: exchanges, intents, and the hold-out rule.

Everything is a pure function of a `random.Random`, so that one seed gives one corpus.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

HOLD_OUT_SHARE = 10
"""One key of so many is held out: never trained on, only evaluated."""

REFUSAL_START = "Sorry, "
"""Every honest "I do not know" begins so, and nothing else does: the evaluation counts on it."""

Scoring = Literal["exact", "refusal"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt and its answer.

    `key` decides what is held out: the prompt itself by default, or the unknown subject where the point is
    that the model has never met it.
    """

    prompt: str
    answer: str
    key: str = ""

    def is_held_out(self) -> bool:
        """Whether this exchange belongs to the evaluation alone, whatever its case and punctuation."""
        return zlib.crc32((self.key or normalise(self.prompt)).encode()) % HOLD_OUT_SHARE == 0


Fragment = tuple[Exchange, ...]
"""Consecutive exchanges of one conversation; the last one is what the intent is about."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A kind of thing that people say.

    `weight` is its share of the corpus, relative to the others'. `scoring` says how held-out prompts are judged:
    `exact` (character by character), `refusal` (any honest refusal), or None where many answers are right; only
    scored intents have a hold-out.
    """

    name: str
    weight: float
    sample: Callable[[Random], Fragment]
    scoring: Scoring | None = None


def normalise(prompt: str) -> str:
    """Return the prompt without what a person types one way today and another way tomorrow: case and end marks."""
    return prompt.lower().strip(" .?!")


def single(prompt: str, answer: str, key: str = "") -> Fragment:
    """Return the fragment of one exchange."""
    return (Exchange(prompt, answer, key),)


def fill(rng: Random, templates: Sequence[str], **slots: object) -> str:
    """Return one of the templates with its slots filled."""
    return rng.choice(templates).format(**slots)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text block."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of a text block: separated by commas, however the lines are broken."""
    return tuple(phrase for part in text.split(",") if (phrase := " ".join(part.split())))


def near_miss(rng: Random, known: Sequence[str]) -> str:
    """Return an invented word that begins like a known one and ends otherwise.

    Without such words the model takes the first letters for the whole: Indonesia for India, a pigeon for a pig.
    """
    start = rng.choice(known)[: rng.randint(2, 5)].strip()
    word = start + "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 2)))
    return near_miss(rng, known) if word in known else word


_SYLLABLES = words("ba da fo gen ia ka land lo mar na nd ne ni on or pe ra ri ro sa sta ta te ti tu ver vo wen za zo")


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence_case(text: str) -> str:
    """Return the text with its first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def sample_kept(rng: Random, intent: Intent) -> Fragment:
    """Return a fragment that may be trained on: none of a scored intent's exchanges is held out."""
    while True:
        fragment = intent.sample(rng)
        if intent.scoring is None or not any(exchange.is_held_out() for exchange in fragment):
            return fragment
