"""Intents about Llamavisor itself, so that the demo feels at home on its own dashboard.

What is said here must stay true of the program: states and figures are those of the status card and of the defaults.
"""

from random import Random

from .grammar import Fragment, Intent, fill, single

STATES = {
    "initial": "Initial means that the server is not running and that nobody has asked for it yet.",
    "starting": "Starting means that the process runs and loads its model, but does not answer yet. Please wait.",
    "ready": "Ready means that the server has answered a probe and can serve requests now.",
    "crashed": "Crashed means that the server ended or stopped answering. Llamavisor starts it again after a short wait.",
    "error": "Error means that Llamavisor has given up on the server. Read the reason on its card, mend it, and press Start.",
    "stopping": "Stopping means that the server was asked to end. It has a few seconds to finish its work.",
}
STATE_QUESTIONS = (
    "What does {state} mean?",
    "What does the state {state} mean?",
    "What is the state {state}?",
    "What does it mean when a server is {state}?",
    "What does it mean that my server is {state}?",
    "What does it mean when the model is {state}?",
    "Why is my server {state}?",
    "Why is the model {state}?",
    "Why does it say {state}?",
    "My server is {state}.",
    "The card says {state}.",
    "The status is {state}. What does that mean?",
    "Explain the state {state}.",
    "Explain {state}.",
)

ACTIONS = {
    "start": "Press Start on its card of the Status page, or type: llamavisor start demo",
    "stop": "Press Stop on its card of the Status page, or type: llamavisor stop demo",
    "restart": "Press Restart on its card of the Status page, or type: llamavisor restart demo",
}
ACTION_OBJECTS = (
    "the server",
    "my server",
    "a server",
    "the model",
    "the engine",
    "an instance",
    "the instance",
    "it",
    "the demo",
)
ACTION_QUESTIONS = (
    "How do I {action} {thing}?",
    "How can I {action} {thing}?",
    "How to {action} {thing}?",
    "I want to {action} {thing}.",
    "Where do I {action} {thing}?",
    "Please {action} {thing}.",
    "Can you {action} {thing}?",
    "How do you {action} {thing}?",
)

WORDS = {
    "Llamavisor": "Llamavisor keeps language model servers alive and tells the truth about them. "
    "It starts them, watches them, starts them again after a crash, and shows their state live.",
    "an instance": "An instance is one server process that Llamavisor supervises. It has one state at a time.",
    "an engine": "An engine is a kind of inference server and how to run it: embedded, llama-server, vllm or command.",
    "an endpoint": "An endpoint is a name that clients call. Behind it stands a model that an instance serves.",
    "a GGUF file": "A GGUF file holds a language model for llama.cpp: its weights, its tokenizer and its chat template.",
    "an LLM": "An LLM is a large language model: a program that has learnt from text to continue text. I am a tiny one.",
    "a token": "A token is a piece of text, often a part of a word. A language model reads and writes tokens.",
}
WORD_QUESTIONS = (
    "What is {word}?",
    "What's {word}?",
    "Explain {word}.",
    "Tell me about {word}.",
    "What does {word} do?",
    "What is the meaning of {word}?",
    "Can you explain what {word} is?",
    "Do you know what {word} is?",
)

ANSWERS = (
    (
        "Type: llamavisor logs demo -f. The Status page shows the last lines, too.",
        (
            "Where are the logs?",
            "How do I see the logs?",
            "Show me the logs.",
            "How can I read the log of my server?",
            "Where do I find the logs?",
            "How do I follow the logs?",
            "Where is the log?",
            "How can I see what the server prints?",
        ),
    ),
    (
        "Llamavisor notices it at once, says why, waits a moment, and starts the server again, up to five times.",
        (
            "What happens when the server crashes?",
            "What happens after a crash?",
            "What if the server dies?",
            "What happens if I kill the server?",
            "What happens when the model crashes?",
            "How often is a server started again?",
            "How many retries are there?",
            "What does Llamavisor do after a crash?",
        ),
    ),
    (
        "Read the reason on its card of the Status page, or type: llamavisor logs demo",
        (
            "Why did my server crash?",
            "Why did the server crash?",
            "Why does my server not start?",
            "The server does not start.",
            "My server keeps crashing.",
            "The model does not load.",
            "What is wrong with my server?",
            "Why is the model not ready?",
        ),
    ),
    (
        "The states are initial, starting, ready, crashed, error and stopping.",
        (
            "What states are there?",
            "Which states are there?",
            "Which states can a server have?",
            "Name the states of a server.",
            "List the states.",
            "What are the states of an instance?",
            "What can the status be?",
            "Which states can an instance be in?",
        ),
    ),
    (
        "Put the path of your GGUF file as the model of an instance into config.json, and start Llamavisor again.",
        (
            "How do I use my own model?",
            "How do I add a model?",
            "Can I use another model?",
            "How do I run a bigger model?",
            "How can I load my own model?",
            "Where do I put my GGUF file?",
            "How do I change the model?",
            "I want to use my own model.",
        ),
    ),
    (
        "Send a POST request to /v1/chat/completions, as with OpenAI. Any OpenAI client works.",
        (
            "How do I call the API?",
            "How do I use the API?",
            "Is there an API?",
            "How can my program talk to you?",
            "Which URL do I call?",
            "Can I use the OpenAI client?",
            "How do I send a request?",
            "How do I use this from Python?",
        ),
    ),
    (
        "Yes. I run on the machine where Llamavisor runs, and I need no internet.",
        (
            "Are you offline?",
            "Do you work offline?",
            "Do you run on this computer?",
            "Do you run on my machine?",
            "Do you work without internet?",
            "Are you running locally?",
            "Can I use you offline?",
            "Are you local?",
        ),
    ),
    (
        "Look at the Status page, or type: llamavisor status",
        (
            "How do I see the status?",
            "Where is the status page?",
            "Is my server ready?",
            "Is the server running?",
            "How do I check the server?",
            "What is the status of my server?",
            "Are my servers healthy?",
            "Show me the status.",
        ),
    ),
)


def state(rng: Random) -> Fragment:
    """Ask what one of the six states means."""
    name = rng.choice(sorted(STATES))
    return single(fill(rng, STATE_QUESTIONS, state=name), STATES[name])


def action(rng: Random) -> Fragment:
    """Ask how to start, stop or restart something."""
    name = rng.choice(sorted(ACTIONS))
    return single(fill(rng, ACTION_QUESTIONS, action=name, thing=rng.choice(ACTION_OBJECTS)), ACTIONS[name])


def word(rng: Random) -> Fragment:
    """Ask for the meaning of a word of the dashboard."""
    name = rng.choice(sorted(WORDS))
    asked = name.removeprefix("an ").removeprefix("a ") if rng.random() < 0.2 else name
    return single(fill(rng, WORD_QUESTIONS, word=asked), WORDS[name])


def product_question(rng: Random) -> Fragment:
    """Ask one of the questions that have an answer of their own."""
    answer, questions = rng.choice(ANSWERS)
    return single(rng.choice(questions), answer)


PRODUCT_INTENTS = (
    Intent("state", 5, state, "exact"),
    Intent("action", 3, action, "exact"),
    Intent("word", 3, word, "exact"),
    Intent("product", 4, product_question, "exact"),
)
