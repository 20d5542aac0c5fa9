"""The corpus: the hold-out is true, the shares are those that were meant, and what is said of Llamavisor is so."""

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from supervisor.process.states import State
from tools.demo_model.corpus import (
    INTENTS,
    Message,
    as_messages,
    cases,
    conversations,
    read_cases,
    read_corpus,
    write_cases,
    write_corpus,
)
from tools.demo_model.grammar import REFUSAL_START, Intent, normalise, phrases, sample_kept, with_article
from tools.demo_model.intents_product import STATES

SAMPLE = 4000


@pytest.fixture(scope="module")
def chats() -> list[list[Message]]:
    return list(islice(conversations(seed=0), SAMPLE))


def asked(chats: list[list[Message]]) -> set[str]:
    return {normalise(message["content"]) for chat in chats for message in chat if message["role"] == "user"}


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another_one(chats: list[list[Message]]) -> None:
    assert list(islice(conversations(seed=0), 50)) == chats[:50]
    assert list(islice(conversations(seed=1), 50)) != chats[:50]


def test_no_held_out_prompt_is_trained_on(chats: list[list[Message]]) -> None:
    single_turn = {normalise(case.messages[-1]["content"]) for case in cases(seed=9) if len(case.messages) == 1}
    assert len(single_turn) > 300
    assert not single_turn & asked(chats)


@pytest.mark.parametrize("intent", [intent for intent in INTENTS if intent.scoring], ids=lambda intent: intent.name)
def test_a_scored_intent_trains_on_nothing_that_is_held_out(intent: Intent) -> None:
    rng = Random(2)
    assert not any(exchange.is_held_out() for _ in range(300) for exchange in sample_kept(rng, intent))


def test_unknown_subjects_are_held_out_whole(chats: list[list[Message]]) -> None:
    subjects = {
        "zebra",
        "giraffe",
        "penguin",
        "shark",
        "whale",
        "dolphin",
        "octopus",
        "camel",
        "tiger",
        "panda",
        "otter",
    }
    tested = {
        word for case in cases(seed=9) if case.intent == "unknown animal" for word in subjects if word in str(case)
    }
    assert tested
    trained = " ".join(asked(chats))
    assert not [word for word in tested if f"a {word} " in f"{trained} "]


@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)
def test_only_refusals_begin_like_refusals(intent: Intent) -> None:
    rng = Random(3)
    answers = [intent.sample(rng)[-1].answer for _ in range(200)]
    if intent.scoring == "refusal":
        assert all(answer.startswith(REFUSAL_START) for answer in answers)
    elif intent.scoring == "exact":
        assert not any(answer.startswith(REFUSAL_START) for answer in answers)


@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: intent.name)
def test_templates_are_filled_and_answers_end_as_sentences(intent: Intent) -> None:
    rng = Random(4)
    for _ in range(200):
        for message in as_messages(intent.sample(rng)):
            assert message["content"].strip() == message["content"] != ""
            assert "{v}" not in message["content"]
            assert "{thing}" not in message["content"]


@pytest.mark.parametrize("intent", [intent for intent in INTENTS if intent.scoring == "exact"], ids=lambda i: i.name)
def test_an_exact_prompt_has_one_answer(intent: Intent) -> None:
    rng = Random(5)
    answers: dict[str, set[str]] = {}
    for _ in range(3000):
        *before, last = intent.sample(rng)
        answers.setdefault(str([e.prompt for e in before]) + normalise(last.prompt), set()).add(last.answer)
    assert {prompt: said for prompt, said in answers.items() if len(said) > 1} == {}


def test_about_a_seventh_of_the_answers_is_out_of_domain(chats: list[list[Message]]) -> None:
    answers = [message["content"] for chat in chats for message in chat if message["role"] == "assistant"]
    fallback = sum("only a tiny demo model and I do not know" in answer for answer in answers)
    assert 0.08 < fallback / len(answers) < 0.2


def test_conversations_are_well_formed(chats: list[list[Message]]) -> None:
    for chat in chats:
        roles = [message["role"] for message in chat]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert turns
    assert Counter(chat[0]["role"] for chat in chats)["system"] > SAMPLE * 0.3


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    write_corpus(tmp_path / "new" / "corpus.jsonl", seed=0, count=20)
    write_cases(tmp_path / "cases.jsonl", seed=9)
    assert read_corpus(tmp_path / "new" / "corpus.jsonl") == list(islice(conversations(seed=0), 20))
    assert read_cases(tmp_path / "cases.jsonl") == cases(seed=9)


def test_every_state_is_explained_by_its_own_name() -> None:
    assert set(STATES) == {state.value for state in State}


def test_small_helpers() -> None:
    assert phrases("\n a house,a car,\n a dress\n") == ("a house", "a car", "a dress")
    assert (with_article("owl"), with_article("cat")) == ("an owl", "a cat")
    assert normalise("What is a Cat?") == normalise("what is a cat") == "what is a cat"
