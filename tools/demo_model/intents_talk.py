"""Intents of small talk, memory of a name, and short Markdown pieces that show what the chat page renders."""

from random import Random

from .facts import NAMES
from .grammar import REFUSAL_START, Exchange, Fragment, Intent, fill, single

ASK_ME = "Ask me about animals, colours, small sums, Llamavisor, or for a story."
ABILITIES = (
    "I can tell short stories, do small sums, and answer simple questions about animals, colours, capital cities "
    "and Llamavisor."
)
OUT_OF_SIGHT = f"{REFUSAL_START}I cannot see that. I have no clock, no camera and no internet."

GREETINGS = (
    "Hi",
    "Hello",
    "Hey",
    "Hi there",
    "Hello there",
    "Good morning",
    "Good evening",
    "Good afternoon",
    "Hey there",
)
GREETINGS_BACK = ("Hello! How can I help you today?", f"Hi there! {ASK_ME}", f"Hello! {ASK_ME}")

TALK = (
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Tell me about yourself.",
            "Introduce yourself.",
            "Are you a robot?",
            "Are you an AI?",
            "Which model are you?",
            "What model is this?",
            "Are you ChatGPT?",
            "Are you human?",
        ),
        ("I am the demo model of Llamavisor: a tiny language model, trained in a few minutes on simple sentences.",),
    ),
    (
        (
            "What can you do?",
            "How can you help me?",
            "What do you know?",
            "Help",
            "What can I ask you?",
            "What are you good at?",
            "What should I ask?",
            "Give me an example.",
        ),
        (f"{ABILITIES} For real work, load a bigger model.",),
    ),
    (
        (
            "Why are you so small?",
            "How big are you?",
            "How many parameters do you have?",
            "How were you trained?",
            "Who made you?",
            "How smart are you?",
            "Are you smart?",
        ),
        ("I have about one million parameters, so I know very little. I was made by the Llamavisor project.",),
    ),
    (
        (
            "How are you?",
            "What's up?",
            "How are you doing?",
            "How is it going?",
            "How do you feel today?",
            "Are you well?",
        ),
        ("I am fine, thank you! How can I help you?", "I am doing well, thank you for asking."),
    ),
    (
        ("Bye", "Goodbye", "See you later", "Good night", "See you tomorrow", "I have to go"),
        ("Goodbye! Have a nice day.", "See you soon! Take care."),
    ),
    (
        (
            "Thanks",
            "Thank you",
            "Thank you very much",
            "Thanks a lot",
            "Great, thanks",
            "That was helpful",
            "Well done",
        ),
        ("You are welcome!", "You are welcome! Is there anything else?"),
    ),
    (
        ("OK", "Yes", "No", "Nice", "Good", "Cool", "I see", "Wow", "Great", "Sure", "Fine", "Really?", "Haha"),
        (f"All right! {ASK_ME}",),
    ),
    (
        ("Test", "Testing", "Ping", "Are you there?", "Hello?", "Is this working?", "Do you work?", "Can you hear me?"),
        (f"Yes, I am here. {ASK_ME}",),
    ),
    (
        (
            "That is wrong.",
            "You are wrong.",
            "That is not true.",
            "This is bad.",
            "You are stupid.",
            "Why are you wrong?",
        ),
        ("I am sorry. I am only a tiny model and I make mistakes.",),
    ),
    (
        ("Tell me a joke.", "Say something funny.", "Make me laugh.", "Do you know a joke?"),
        (
            "Why did the llama cross the road? Because the supervisor restarted it on the other side.",
            "What does a cow say to a sheep? Moo. The sheep did not understand it.",
        ),
    ),
    (
        ("I am sad.", "I feel sad.", "I am tired.", "I am bored.", "I feel lonely.", "I am angry.", "I am not well."),
        ("I am sorry to hear that. Would a short story help?",),
    ),
    (
        ("What is the meaning of life?", "What is love?", "Do you love me?", "Are you alive?", "Do you have feelings?"),
        ("I am only a small program, so I cannot tell. Be kind and sleep well.",),
    ),
    (
        (
            "What time is it?",
            "What day is it today?",
            "What is the date?",
            "What year is it?",
            "How is the weather?",
            "Will it rain tomorrow?",
            "What is in the news?",
            "Where am I?",
            "Can you see me?",
        ),
        (OUT_OF_SIGHT,),
    ),
    (
        ("Say the alphabet.", "Recite the alphabet.", "What are the letters of the alphabet?", "Tell me the alphabet."),
        ("A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z.",),
    ),
)

INTRODUCTIONS = (
    "My name is {name}.",
    "I am {name}.",
    "Call me {name}.",
    "Hi, my name is {name}.",
    "Hello, I am {name}.",
)
NAME_QUESTIONS = (
    "What is my name?",
    "Do you know my name?",
    "Who am I?",
    "Do you remember my name?",
    "What's my name?",
)
UNKNOWN_NAME = f"{REFUSAL_START}I do not know your name yet. What is it?"

LIST_REQUESTS = ("Write a list of {topic}.", "List some {topic}.", "Make a list of {topic}.", "Name three {topic}.")
TABLE_REQUESTS = ("Make a table of {topic}.", "Show me a table of {topic}.", "Write a table of {topic}.")
LISTS = {
    "animals": ("Cat", "Dog", "Owl"),
    "colours": ("Red", "Green", "Blue"),
    "countries": ("France", "Japan", "Peru"),
    "names": ("Anna", "Ben", "Clara"),
}
TABLES = {
    "animals": (("Animal", "Sound"), ("Cat", "meow"), ("Dog", "woof"), ("Owl", "hoot")),
    "capitals": (("Country", "Capital"), ("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima")),
    "numbers": (("Number", "Word"), ("1", "one"), ("2", "two"), ("3", "three")),
}
CODE = {
    "Python": 'print("Hello, world!")',
    "JavaScript": 'console.log("Hello, world!");',
    "Bash": 'echo "Hello, world!"',
    "C": '#include <stdio.h>\n\nint main(void) {\n    puts("Hello, world!");\n    return 0;\n}',
}
CODE_REQUESTS = (
    "Write hello world in {language}.",
    "Say hello in {language}.",
    "Show me hello world in {language}.",
    "Hello world in {language}",
)


def greeting(rng: Random) -> Fragment:
    """Say hello."""
    return single(rng.choice(GREETINGS), rng.choice(GREETINGS_BACK))


def talk(rng: Random) -> Fragment:
    """Say something of everyday talk."""
    prompts, answers = rng.choice(TALK)
    return single(rng.choice(prompts), rng.choice(answers))


def introduction(rng: Random) -> Fragment:
    """Tell one's name; half of the time, ask for it afterwards, at once or a little later."""
    name = rng.choice(NAMES)
    told = Exchange(fill(rng, INTRODUCTIONS, name=name), f"Nice to meet you, {name}! How can I help you today?")
    if rng.random() < 0.5:
        return (told,)
    asked = rng.choice(NAME_QUESTIONS)
    between = talk(rng) if rng.random() < 0.4 else ()
    return (told, *between, Exchange(asked, f"Your name is {name}.", f"{told.prompt.lower()} {asked.lower()}"))


def markdown_list(rng: Random) -> Fragment:
    """Ask for a Markdown list."""
    topic = rng.choice(sorted(LISTS))
    lines = "\n".join(f"- {item}" for item in LISTS[topic])
    return single(fill(rng, LIST_REQUESTS, topic=topic), f"Here are three {topic}:\n\n{lines}")


def markdown_table(rng: Random) -> Fragment:
    """Ask for a Markdown table."""
    topic = rng.choice(sorted(TABLES))
    head, *rows = (f"| {left} | {right} |" for left, right in TABLES[topic])
    return single(fill(rng, TABLE_REQUESTS, topic=topic), "\n".join((head, "| --- | --- |", *rows)))


def hello_world(rng: Random) -> Fragment:
    """Ask for the one program that the model knows."""
    language = rng.choice(sorted(CODE))
    answer = f"Here it is in {language}:\n\n```{language.lower()}\n{CODE[language]}\n```"
    return single(fill(rng, CODE_REQUESTS, language=language), answer)


TALK_INTENTS = (
    Intent("greeting", 3, greeting),
    Intent("talk", 16, talk),
    Intent("name", 4, introduction, "exact"),
    Intent("list", 1, markdown_list),
    Intent("table", 1, markdown_table),
    Intent("code", 1, hello_world),
)
