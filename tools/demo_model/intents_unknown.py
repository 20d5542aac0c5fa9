"""Everything else that people type: out-of-domain prompts of many forms, all answered by one honest sentence.

The forms are made from word lists and invented words, so that the model learns "none of what I know" rather than a
list of strange topics.
"""

from random import Random

from .facts import ANIMALS, CAPITALS, NAMES, NOUNS
from .grammar import REFUSAL_START, Fragment, Intent, phrases, sentence_case, single, with_article, words

FALLBACK = (
    f"{REFUSAL_START}I am only a tiny demo model and I do not know that. "
    "Ask me about animals, colours, small sums, Llamavisor, or for a story."
)

VERBS = words(
    """
    explain write fix draw translate summarize compare find solve calculate build plan check review sell buy design describe
    improve debug test sort print generate give bring open play cook eat drink read learn teach pay win lose close run walk
    """
)
ADJECTIVES = words("best worst cheapest largest smallest oldest newest fastest famous strongest easiest nicest real")
OTHER_LANGUAGES = phrases(
    """
    was ist das,wie geht es dir,wo ist der bahnhof,guten tag,comment allez vous,bonjour,je ne sais pas,que es esto,
    hola amigo,buenos dias,donde esta la casa,come stai,buongiorno,grazie mille,hur mår du,dzień dobry,привет,как дела,
    你好,こんにちは,안녕하세요,مرحبا
    """
)
FORMS = (
    "{v} {a} {b}",
    "{v} a {a} for my {b}.",
    "Which is better, {a} or {b}?",
    "Do you like {a}?",
    "Do you have a {a}?",
    "Can you {v} a {a}?",
    "Why is {a} {j}?",
    "Why do people {v} {a}?",
    "What is the {j} {a}?",
    "What is a {a}?",
    "What is {a}?",
    "How many {a}s are in a {b}?",
    "Who invented the {a}?",
    "Who is the {a} of {b}?",
    "When did the {a} {v}?",
    "I need a {a} and a {b}.",
    "Please {v} this {a}: {b} {c} {d}",
    "{a} {b}",
    "{a}",
    "Where can I buy a {a}?",
    "Is {a} {j}?",
    "How does a {a} work?",
    "How do I {v} the {a} in {b}?",
    "Write {a} {b}",
    "Write an essay about {a} and {b}.",
    "Should I {v} my {a}?",
    "My {a} is {j}.",
    "{j} {a} in the world",
    "Give me {n} {a}s.",
    "Tell me about {a}.",
    "Explain {a} to me.",
    "What do you think about {a}?",
    "Translate {a} into {b}.",
    "Translate {a} into French.",
    "How do you say {a} in Spanish?",
    "Can you help me with my {a}?",
    "What do you mean by {a}?",
    "How fast is a {a}?",
    "I am a {a} and I {v} {b}.",
    "The {a} and the {b} {v} a {c}. What {d} is it?",
    "{c} = {n} * {a}({b})",
    "def {a}({b}): return {c}",
    "https://{a}.{b}/{c}",
    "Who won the {a} in {y}?",
    "What happened in {y}?",
    "Write a poem about {a}.",
    "Write a haiku about the {a}.",
    "Make a table of {a}s.",
    "{n}",
)
FORMS_ABOUT_THE_KNOWN = (
    "How many legs does {animal} have?",
    "How old is {animal}?",
    "How big is {animal}?",
    "Can {animal} {v}?",
    "Do you like {animal}?",
    "Is {animal} {j}?",
    "Which is better, {animal} or a {a}?",
    "How many people live in {country}?",
    "Who is the president of {country}?",
    "What do people eat in {country}?",
    "Have you been to {country}?",
    "Tell me about {country}.",
    "What is the {a} of {country}?",
    "How far is {city}?",
    "What is the weather in {city}?",
    "Who is {name}?",
    "How old is {name}?",
    "Where is {name}?",
    "Summarize this text: {animal} {v}s a {a} in {city}. {name} has a {b}.",
    "{animal} and a {a}",
)
"""What the model knows, asked about in ways that it does not: a known word alone must not call up an answer."""


def unknown(rng: Random) -> Fragment:
    """Say something that the model knows nothing about."""
    kind = rng.random()
    if kind < 0.05:
        return single(rng.choice(OTHER_LANGUAGES), FALLBACK)
    if kind < 0.12:
        return single(" ".join(_word(rng) for _ in range(rng.randint(3, 40))), FALLBACK)
    if kind < 0.17:
        return single(" ".join(_invented(rng) for _ in range(rng.randint(1, 4))), FALLBACK)
    return single(sentence_case(_filled(rng, FORMS if kind < 0.75 else FORMS_ABOUT_THE_KNOWN)), FALLBACK)


def _filled(rng: Random, forms: tuple[str, ...]) -> str:
    slots = {name: _word(rng) for name in "abcd"}
    slots |= {"v": rng.choice(VERBS), "j": rng.choice(ADJECTIVES), "name": rng.choice(NAMES)}
    country, city = rng.choice(sorted(CAPITALS.items()))
    slots |= {"animal": with_article(rng.choice(sorted(ANIMALS))), "country": country, "city": city}
    return rng.choice(forms).format(n=rng.randint(2, 99), y=rng.randint(1500, 2030), **slots)


def _word(rng: Random) -> str:
    return rng.choice(NOUNS) if rng.random() < 0.75 else _invented(rng)


def _invented(rng: Random) -> str:
    syllables = (rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
    return "".join(syllables) + rng.choice(("", "n", "s", "r", "t", "ck", "ing"))


UNKNOWN_INTENTS = (Intent("out of domain", 20, unknown, "refusal"),)
