"""Intents about the small world that the model knows: animals, colours, capitals, opposites, calendar, numbers, tips.

Each family comes with its honest twin: a question of the same form about something unknown, answered by a refusal.
Without the twin the model answers such questions with the nearest thing it knows, which is worse than no answer.
"""

from collections.abc import Sequence
from random import Random

from .facts import (
    ANIMALS,
    CAPITALS,
    COLOURS,
    DAYS,
    MONTHS,
    NOUNS,
    NUMBER_WORDS,
    OPPOSITES,
    TIPS,
    UNKNOWN_ANIMALS,
    UNKNOWN_COLOURED,
    UNKNOWN_COUNTRIES,
    UNKNOWN_OPPOSITES,
)
from .grammar import REFUSAL_START, Exchange, Fragment, Intent, fill, near_miss, sentence_case, single, with_article

LARGEST_OPERAND = 9
LARGEST_COUNT = 10

SOUND = ("What does {a} say?", "What sound does {a} make?", "What noise does {a} make?", "How does {a} sound?")
HOME = ("Where does {a} live?", "Where do you find {a}?", "Where is the home of {a}?", "Where can I find {a}?")
FOOD = ("What does {a} eat?", "What food does {a} like?", "What do I feed {a}?", "What does {a} like to eat?")
ANIMAL = ("What is {a}?", "Tell me about {a}.", "Describe {a}.", "Can you describe {a}?", "What do you know about {a}?")
COLOUR = (
    "What {colour} is {thing}?",
    "Which {colour} is {thing}?",
    "Tell me the {colour} of {thing}.",
    "What is the {colour} of {thing}?",
    "What {colour} does {thing} have?",
)
CAPITAL = (
    "What is the capital of {country}?",
    "What's the capital of {country}?",
    "Capital of {country}?",
    "Which city is the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "What is the capital city of {country}?",
    "Do you know the capital of {country}?",
)
COUNTRY = (
    "Where is {city}?",
    "In which country is {city}?",
    "Which country is {city} in?",
    "What country is {city} in?",
)
FOLLOW_UP = ("And {subject}?", "What about {subject}?", "And of {subject}?", "How about {subject}?")
OPPOSITE = (
    "What is the opposite of {word}?",
    "What's the opposite of {word}?",
    "Opposite of {word}?",
    "Tell me the opposite of {word}.",
    "Which word is the opposite of {word}?",
)
PLUS = (
    "What is {a} plus {b}?",
    "What is {a} + {b}?",
    "What's {a} + {b}?",
    "{a} + {b}",
    "{a} + {b} =",
    "{a}+{b}",
    "{a}+{b}=",
    "{a}+{b}=?",
    "{a} + {b} = ?",
    "What is {a}+{b}?",
    "What's {a}+{b}?",
    "Calculate {a} + {b}.",
    "{a} plus {b}?",
    "How much is {a} plus {b}?",
    "How much is {a} + {b}?",
    "Add {a} and {b}.",
)
MINUS = (
    "What is {a} minus {b}?",
    "What is {a} - {b}?",
    "What's {a} - {b}?",
    "{a} - {b}",
    "{a} - {b} =",
    "{a}-{b}",
    "{a}-{b}=",
    "{a}-{b}=?",
    "{a} - {b} = ?",
    "What is {a}-{b}?",
    "What's {a}-{b}?",
    "Calculate {a} - {b}.",
    "{a} minus {b}?",
    "How much is {a} minus {b}?",
    "How much is {a} - {b}?",
    "Take {b} away from {a}.",
)
TIMES = (
    "What is {a} times {b}?",
    "What is {a} * {b}?",
    "{a} * {b}",
    "{a}*{b}",
    "What is {a}*{b}?",
    "{a} times {b}",
    "What is {a} x {b}?",
    "{a} x {b}",
    "How much is {a} divided by {b}?",
    "{a} / {b}",
    "Multiply {a} by {b}.",
    "What is the square root of {a}?",
)
AFTER = ("What {unit} comes after {x}?", "Which {unit} is after {x}?", "What is the {unit} after {x}?")
BEFORE = ("What {unit} comes before {x}?", "Which {unit} is before {x}?", "What is the {unit} before {x}?")
COUNT = (
    "Count to {n}.",
    "Can you count to {n}?",
    "Please count from 1 to {n}.",
    "Count from one to {n}.",
    "Count up to {n}.",
)
COUNT_DOWN = ("Count down from {n}.", "Can you count down from {n}?", "Count backwards from {n}.")
TIP = (
    "How do I {thing}?",
    "How can I {thing}?",
    "Give me a tip to {thing}.",
    "I want to {thing}.",
    "What should I do to {thing}?",
    "How do you {thing}?",
    "Help me to {thing}.",
)

UNKNOWN_ANIMAL = f"{REFUSAL_START}I do not know that animal. I only know a few, such as cats, dogs and owls."
UNKNOWN_COLOUR = f"{REFUSAL_START}I do not know what colour that is."
UNKNOWN_CAPITAL = f"{REFUSAL_START}I do not know that capital. I only know a few, such as Paris and Tokyo."
UNKNOWN_OPPOSITE = f"{REFUSAL_START}I do not know the opposite of that."
UNKNOWN_SUM = f"{REFUSAL_START}I can only add and take away numbers from 0 to {LARGEST_OPERAND}."
UNKNOWN_COUNT = f"{REFUSAL_START}I can only count up to {LARGEST_COUNT}."


def animal_sound(rng: Random) -> Fragment:
    """Ask what an animal says, now and then of a second animal in short."""
    first, second = rng.sample(sorted(ANIMALS), 2)
    question = Exchange(fill(rng, SOUND, a=with_article(first)), _says(first))
    return _maybe_follow_up(rng, question, with_article(second), _says(second))


def _says(animal: str) -> str:
    return f"{sentence_case(with_article(animal))} says {ANIMALS[animal].sound}."


def animal_home(rng: Random) -> Fragment:
    """Ask where an animal lives."""
    name = rng.choice(sorted(ANIMALS))
    one = with_article(name)
    return single(fill(rng, HOME, a=one), f"{sentence_case(one)} lives in {ANIMALS[name].home}.")


def animal_food(rng: Random) -> Fragment:
    """Ask what an animal eats."""
    name = rng.choice(sorted(ANIMALS))
    one = with_article(name)
    return single(fill(rng, FOOD, a=one), f"{sentence_case(one)} likes to eat {ANIMALS[name].food}.")


def animal_description(rng: Random) -> Fragment:
    """Ask for all that is known about an animal."""
    name = rng.choice(sorted(ANIMALS))
    one, facts = with_article(name), ANIMALS[name]
    answer = (
        f"{sentence_case(one)} is {facts.description}. "
        f"It lives in {facts.home}, likes to eat {facts.food}, and says {facts.sound}."
    )
    return single(fill(rng, ANIMAL, a=one), answer)


def unknown_animal(rng: Random) -> Fragment:
    """Ask any of the animal questions about an animal that is not in the table."""
    name = _unknown(rng, UNKNOWN_ANIMALS, sorted(ANIMALS))
    return single(fill(rng, SOUND + HOME + FOOD + ANIMAL, a=with_article(name)), UNKNOWN_ANIMAL, f"animal {name}")


def colour(rng: Random) -> Fragment:
    """Ask for the colour of a thing."""
    thing = rng.choice(sorted(COLOURS))
    prompt = fill(rng, COLOUR, colour=rng.choice(("color", "colour")), thing=thing)
    return single(prompt, f"{sentence_case(thing)} is {COLOURS[thing]}.")


def unknown_colour(rng: Random) -> Fragment:
    """Ask for the colour of something that may have any, or none."""
    things = (rng.choice(UNKNOWN_COLOURED), f"{rng.choice(('a', 'the', 'my', 'your'))} {rng.choice(NOUNS)}")
    thing = _unknown(rng, things, sorted(COLOURS))
    prompt = fill(rng, COLOUR, colour=rng.choice(("color", "colour")), thing=thing)
    return single(prompt, UNKNOWN_COLOUR, f"colour {thing}")


def capital(rng: Random) -> Fragment:
    """Ask for the capital of a country, now and then of a second country in short."""
    first, second = rng.sample(sorted(CAPITALS), 2)
    question = Exchange(fill(rng, CAPITAL, country=first), f"The capital of {first} is {CAPITALS[first]}.")
    return _maybe_follow_up(rng, question, second, f"The capital of {second} is {CAPITALS[second]}.")


def country(rng: Random) -> Fragment:
    """Ask where a capital is."""
    name = rng.choice(sorted(CAPITALS))
    return single(fill(rng, COUNTRY, city=CAPITALS[name]), f"{CAPITALS[name]} is the capital of {name}.")


def unknown_capital(rng: Random) -> Fragment:
    """Ask for a capital that is not in the table."""
    name = _unknown(rng, UNKNOWN_COUNTRIES, sorted(CAPITALS))
    return single(fill(rng, CAPITAL, country=name), UNKNOWN_CAPITAL, f"capital {name}")


def opposite(rng: Random) -> Fragment:
    """Ask for the opposite of a word."""
    word = rng.choice(sorted(OPPOSITES))
    return single(fill(rng, OPPOSITE, word=word), f"The opposite of {word} is {OPPOSITES[word]}.")


def unknown_opposite(rng: Random) -> Fragment:
    """Ask for the opposite of a word that has none, or none that the model knows."""
    word = _unknown(rng, UNKNOWN_OPPOSITES, sorted(OPPOSITES))
    return single(fill(rng, OPPOSITE, word=word), UNKNOWN_OPPOSITE, f"opposite {word}")


def addition(rng: Random) -> Fragment:
    """Ask for the sum of two one-digit numbers, in digits or in words."""
    a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
    return single(_sum_prompt(rng, PLUS, ("plus", "Add"), a, b), f"{a} plus {b} is {a + b}.")


def subtraction(rng: Random) -> Fragment:
    """Ask for the difference of two one-digit numbers, in digits or in words; it may be below zero."""
    a, b = rng.randint(0, LARGEST_OPERAND), rng.randint(0, LARGEST_OPERAND)
    return single(_sum_prompt(rng, MINUS, ("minus", "Take"), a, b), f"{a} minus {b} is {a - b}.")


def _sum_prompt(rng: Random, templates: tuple[str, ...], verbal: tuple[str, str], a: int, b: int) -> str:
    if rng.random() < 0.7:
        return fill(rng, templates, a=a, b=b)
    spelled = [template for template in templates if any(word in template for word in verbal)]
    return fill(rng, spelled, a=NUMBER_WORDS[a], b=NUMBER_WORDS[b])


def unknown_arithmetic(rng: Random) -> Fragment:
    """Ask for sums of larger numbers, products and quotients: none of them is learnt."""
    small = rng.randint(0, LARGEST_OPERAND)
    large = rng.choice((rng.randint(LARGEST_OPERAND + 1, 99), rng.randint(100, 9999)))
    if rng.random() < 0.7:
        a, b = rng.choice(((small, large), (large, small), (large, rng.randint(LARGEST_OPERAND + 1, 999))))
        return single(fill(rng, PLUS + MINUS, a=a, b=b), UNKNOWN_SUM)
    return single(fill(rng, TIMES, a=rng.randint(0, 99), b=rng.randint(0, 99)), UNKNOWN_SUM)


def neighbour_day(rng: Random) -> Fragment:
    """Ask for the day before or after a day."""
    return _neighbour(rng, "day", DAYS)


def neighbour_month(rng: Random) -> Fragment:
    """Ask for the month before or after a month."""
    return _neighbour(rng, "month", MONTHS)


def _neighbour(rng: Random, unit: str, names: tuple[str, ...]) -> Fragment:
    position = rng.randrange(len(names))
    here, following = names[position], names[(position + 1) % len(names)]
    if rng.random() < 0.5:
        return single(fill(rng, AFTER, unit=unit, x=here), f"{following} comes after {here}.")
    return single(fill(rng, BEFORE, unit=unit, x=following), f"{here} comes before {following}.")


def calendar(rng: Random) -> Fragment:
    """Ask for all days or all months."""
    asked, of, names = rng.choice((("days", "of the week", DAYS), ("months", "of the year", MONTHS)))
    templates = ("What are the {asked} {of}?", "Name the {asked} {of}.", "List the {asked} {of}.", "List the {asked}.")
    answer = f"The {asked} {of} are {', '.join(names[:-1])} and {names[-1]}."
    return single(fill(rng, templates, asked=asked, of=of), answer)


def counting(rng: Random) -> Fragment:
    """Ask to count up or down within the learnt range."""
    number = rng.randint(2, LARGEST_COUNT)
    if rng.random() < 0.65:
        return single(fill(rng, COUNT, n=_digits_or_word(rng, number)), _listing(range(1, number + 1)))
    return single(fill(rng, COUNT_DOWN, n=_digits_or_word(rng, number)), _listing(range(number, -1, -1)))


def unknown_count(rng: Random) -> Fragment:
    """Ask to count further than was learnt."""
    larger = (rng.randint(LARGEST_COUNT + 1, 99), rng.randint(100, 5000))
    in_words = ("a hundred", "a thousand", "a million", *NUMBER_WORDS[LARGEST_COUNT + 1 :])
    return single(
        fill(rng, COUNT + COUNT_DOWN, n=rng.choice((rng.choice(larger), rng.choice(in_words)))), UNKNOWN_COUNT
    )


def _digits_or_word(rng: Random, number: int) -> str:
    return str(number) if rng.random() < 0.6 else NUMBER_WORDS[number]


def _listing(numbers: range) -> str:
    return ", ".join(map(str, numbers)) + "."


def tip(rng: Random) -> Fragment:
    """Ask for a tip."""
    thing = rng.choice(sorted(TIPS))
    return single(fill(rng, TIP, thing=thing), TIPS[thing])


def _unknown(rng: Random, unknown: Sequence[str], known: Sequence[str]) -> str:
    return rng.choice(unknown) if rng.random() < 0.7 else near_miss(rng, known)


def _maybe_follow_up(rng: Random, question: Exchange, subject: str, answer: str) -> Fragment:
    """Return the question, sometimes followed by the same question in short about another subject.

    The hold-out key of the short one names what it is about: "And Spain?" alone would not.
    """
    if rng.random() < 0.75:
        return (question,)
    prompt = fill(rng, FOLLOW_UP, subject=subject)
    return (question, Exchange(prompt, answer, f"{question.answer.lower()} {prompt}"))


KNOWLEDGE_INTENTS = (
    Intent("sound", 3, animal_sound, "exact"),
    Intent("home", 3, animal_home, "exact"),
    Intent("food", 3, animal_food, "exact"),
    Intent("animal", 4, animal_description, "exact"),
    Intent("unknown animal", 4, unknown_animal, "refusal"),
    Intent("colour", 3, colour, "exact"),
    Intent("unknown colour", 4, unknown_colour, "refusal"),
    Intent("capital", 6, capital, "exact"),
    Intent("country", 2, country, "exact"),
    Intent("unknown capital", 6, unknown_capital, "refusal"),
    Intent("opposite", 4, opposite, "exact"),
    Intent("unknown opposite", 3, unknown_opposite, "refusal"),
    Intent("sum", 14, addition, "exact"),
    Intent("difference", 13, subtraction, "exact"),
    Intent("unknown sum", 7, unknown_arithmetic, "refusal"),
    Intent("day", 2, neighbour_day, "exact"),
    Intent("month", 3, neighbour_month, "exact"),
    Intent("calendar", 0.7, calendar),
    Intent("counting", 6, counting, "exact"),
    Intent("unknown count", 3, unknown_count, "refusal"),
    Intent("tip", 3, tip, "exact"),
)
