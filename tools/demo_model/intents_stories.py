"""Intents of stories and poems: many sentences, so that streaming can be seen.

A story keeps its hero, place and find throughout; the choice among them is the model's when it samples.
"""

from random import Random

from .facts import ANIMALS, NAMES, NOUNS, UNKNOWN_ANIMALS
from .grammar import Fragment, Intent, fill, single, with_article

PLACES = (
    "the park",
    "the forest",
    "the beach",
    "the garden",
    "the market",
    "the river",
    "the hill",
    "the old house",
    "the lake",
    "the village",
)
FINDS = (
    "a red ball",
    "a shiny key",
    "a lost kitten",
    "a small boat",
    "a golden leaf",
    "a blue kite",
    "a warm hat",
    "a round stone",
    "a secret map",
    "a tiny seed",
)
FEELINGS = ("happy and smiled", "curious and looked closer", "brave and took a deep breath", "surprised and laughed")
HELPERS = ("a kind old man", "a friendly dog", "a wise owl", "a little bird", "a tall gardener", "a quiet girl")
WEATHERS = ("The sun was warm.", "A soft wind blew.", "It had rained all night.", "The sky was clear and blue.")
TROUBLES = (
    "But soon it began to rain, and the way back was hard to see.",
    "But on the way back there was a deep hole in the path.",
    "But then a loud noise came out of the trees.",
    "But when evening came, nobody knew the way home.",
)
HELPS = (
    "Do not worry, I know what to do.",
    "Come with me, it is not far.",
    "Let us try it together.",
    "Stay calm, we will find a way.",
)
ENDINGS = (
    "They all went home happy.",
    "It was the best day ever.",
    "From that day on, they were good friends.",
    "That night, everyone slept well.",
    "And they never forgot that day.",
)

PLAIN_REQUESTS = (
    "Tell me a story.",
    "Tell me a short story.",
    "Write a story.",
    "Can you tell me a story?",
    "I want to hear a story.",
    "Write me a short story.",
    "Tell me another story.",
    "Another story, please.",
    "A story, please.",
    "Once upon a time",
    "Tell me a bedtime story.",
    "Make up a story.",
)
ABOUT_REQUESTS = (
    "Tell me a story about {hero}.",
    "Write a story about {hero}.",
    "Can you tell me a story about {hero}?",
    "Write a short story about {hero}.",
    "I want a story about {hero}.",
    "A story about {hero}, please.",
)
LONG_REQUESTS = (
    "Tell me a long story.",
    "Write a long story.",
    "Can you tell me a long story?",
    "Tell me a longer story.",
    "I want to hear a long story.",
    "Write a story with several chapters.",
)
POEM_REQUESTS = (
    "Write a poem.",
    "Tell me a poem.",
    "Can you write a poem?",
    "Write a short poem.",
    "Say a rhyme.",
    "Sing a song.",
)
POEMS = (
    """\
The moon is up, the day is done,
the birds are sleeping, every one.
The wind is soft, the night is deep,
so close your eyes and go to sleep.""",
    """\
A little llama climbed a hill,
it sat down there and sat quite still.
It looked at clouds, it looked at me,
and then it drank a cup of tea.""",
    """\
The server fell, it made no sound,
but someone kind was still around.
It waited once, it tried again,
and it was ready, there and then.""",
)


def story(rng: Random) -> Fragment:
    """Ask for a story: about something unknown, about nobody, about somebody, or about an animal."""
    kind = rng.random()
    if kind < 0.15:
        prompt = fill(rng, ABOUT_REQUESTS, hero=with_article(rng.choice(UNKNOWN_ANIMALS + NOUNS)))
        name = rng.choice(NAMES)
        told = _story(rng, f"a child named {name}", name, rng.choice(PLACES))
        return single(prompt, f"I do not know that one, but here is another story. {told}")
    if kind < 0.5:
        name = rng.choice(NAMES)
        return single(rng.choice(PLAIN_REQUESTS), _story(rng, f"a child named {name}", name, rng.choice(PLACES)))
    if kind < 0.65:
        name = rng.choice(NAMES)
        return single(
            fill(rng, ABOUT_REQUESTS, hero=name), _story(rng, f"a child named {name}", name, rng.choice(PLACES))
        )
    animal = rng.choice(sorted(ANIMALS))
    hero, name = f"a little {animal} named {rng.choice(NAMES)}", f"the {animal}"
    prompt = fill(rng, ABOUT_REQUESTS, hero=with_article(animal))
    return single(prompt, _story(rng, hero, name, ANIMALS[animal].home))


def long_story(rng: Random) -> Fragment:
    """Ask for a story of three paragraphs."""
    name, friend = rng.sample(NAMES, 2)
    first = _opening(rng, f"a child named {name}", name, rng.choice(PLACES))
    second = f"{rng.choice(TROUBLES)} {_help(rng, name)}"
    third = (
        f"The next morning, {name} told {friend} everything. {friend} wanted to see the place, too. "
        f"So they went to {rng.choice(PLACES)} together, and there they found {rng.choice(FINDS)}. {rng.choice(ENDINGS)}"
    )
    return single(rng.choice(LONG_REQUESTS), "\n\n".join((first, second, third)))


def poem(rng: Random) -> Fragment:
    """Ask for a poem."""
    return single(rng.choice(POEM_REQUESTS), rng.choice(POEMS))


def _story(rng: Random, hero: str, name: str, home: str) -> str:
    return f"{_opening(rng, hero, name, home)} {rng.choice(TROUBLES)} {_help(rng, name)} {rng.choice(ENDINGS)}"


def _opening(rng: Random, hero: str, name: str, home: str) -> str:
    subject = name[0].upper() + name[1:]
    return (
        f"Once upon a time, there was {hero}, who lived near {home}. {rng.choice(WEATHERS)} "
        f"One day, {name} went to {rng.choice(PLACES)} and found {rng.choice(FINDS)}. "
        f"{subject} was {rng.choice(FEELINGS)}."
    )


def _help(rng: Random, name: str) -> str:
    return (
        f'Then {rng.choice(HELPERS)} came by and said: "{rng.choice(HELPS)}" And so it was. Soon {name} was safe again.'
    )


STORY_INTENTS = (
    Intent("story", 5, story),
    Intent("long story", 1, long_story),
    Intent("poem", 1.5, poem),
)
