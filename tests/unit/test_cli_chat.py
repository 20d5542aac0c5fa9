"""The chat without a server: what is sent, what an answer amounts to, how Markdown is cut, what the person may type."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from supervisor.cli.answering import Answer
from supervisor.cli.chat_session import ChatSession
from supervisor.cli.conversation import Conversation, Sampling
from supervisor.cli.formatting import waiting_words
from supervisor.cli.outcome import RefusedError
from supervisor.cli.place import ServerPlace
from supervisor.cli.screen import BlockSplitter, LastRows, markdown
from supervisor.cli.sse import ServerSentEvent


def event(data: object) -> ServerSentEvent:
    return ServerSentEvent("message", data if isinstance(data, str) else json.dumps(data), "")


def delta(content: str, **more: Any) -> ServerSentEvent:
    return event({"model": "tiny", "choices": [{"index": 0, "delta": {"content": content}, **more}]})


def test_only_what_was_set_is_sent() -> None:
    body = Conversation().request("Hi")
    assert body == {
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_conversation_is_sent_whole() -> None:
    talk = Conversation(Sampling(model="m", system="Be brief.", temperature=0.0, max_tokens=5))
    talk.request("One?")
    talk.answered("1")
    body = talk.request("Two?")
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "One?", "1", "Two?"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 5)


def test_a_question_that_failed_is_not_sent_with_the_next() -> None:
    talk = Conversation()
    talk.request("Lost?")
    body = talk.request("Next?")
    assert [message["content"] for message in body["messages"]] == ["Next?"]


@pytest.mark.parametrize("answer", ["An answer", None])
def test_retry_asks_the_same_again(answer: str | None) -> None:
    talk = Conversation()
    talk.request("First")
    talk.answered("ok")
    before = talk.request("Again?")
    if answer is not None:
        talk.answered(answer)
    question = talk.take_back()
    assert question == "Again?"
    assert talk.request(question) == before


def test_nothing_to_retry_after_clear() -> None:
    talk = Conversation()
    talk.request("One")
    talk.answered("1")
    talk.clear()
    assert talk.take_back() is None
    assert len(talk.request("New")["messages"]) == 1


def test_an_answer_adds_up() -> None:
    answer = Answer()
    pieces = [answer.take(one) for one in (delta("Hel"), delta("lo", finish_reason="stop"))]
    answer.take(event({"choices": [], "usage": {"completion_tokens": 7}}))
    answer.take(event("[DONE]"))
    assert pieces == ["Hel", "lo"]
    assert (answer.text, answer.model, answer.finish_reason, answer.tokens) == ("Hello", "tiny", "stop", 7)
    assert answer.done
    assert answer.cut is None
    assert answer.account().startswith("7 tokens, ")


def test_the_pace_counts_from_the_first_token() -> None:
    answer = Answer(text="x", pieces=11, asked_at=0.0, first_at=2.0, last_at=4.0)
    assert answer.tokens_per_second == pytest.approx(5.0)
    assert answer.first_token_seconds == pytest.approx(2.0)
    assert "11 tokens, 5.0 tokens/s, first after 2.00 s" in answer.account()


def test_one_token_has_no_pace() -> None:
    answer = Answer()
    answer.take(delta("x"))
    assert answer.tokens_per_second is None
    assert answer.account().startswith("1 token, ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"error": {"message": "The engine died.", "code": "engine_died"}}, "The engine died"),
        ({"error": "boom"}, "boom"),
        ("no json", "no part of an answer"),
        ([1], "no part of an answer"),
    ],
)
def test_a_cut_is_told(data: object, words: str) -> None:
    answer = Answer()
    answer.take(delta("Half an "))
    answer.take(event(data))
    assert answer.cut is not None
    assert words in answer.cut
    assert answer.to_wire()["cut"] == answer.cut
    assert answer.text == "Half an "


WAITING = {"position": 2, "estimate_seconds": 12.3, "state": "ready", "progress": None}


def waiting(**more: object) -> ServerSentEvent:
    return ServerSentEvent("llamavisor.waiting", json.dumps({**WAITING, **more}), "")


def test_what_an_answer_waits_for_is_told_until_it_begins() -> None:
    answer = Answer()
    assert answer.take(waiting(state="starting", progress=0.6)) == ""
    assert answer.waiting is not None
    assert waiting_words(answer.waiting) == "number 2 in line, the model is starting, 60 % loaded"
    lack = {"state": "initial", "reason": "needs 2 GB of memory, 1 GB free, 1 busy"}
    said = "number 2 in line, the model is not loaded yet: needs 2 GB of memory, 1 GB free, 1 busy"
    assert waiting_words({**WAITING, **lack}) == said
    assert waiting_words(WAITING) == "number 2 in line, about 12 s"
    assert answer.take(delta("Hi")) == "Hi"
    assert answer.waiting is None


def test_a_refusal_of_what_still_waits_is_no_cut_answer() -> None:
    answer = Answer()
    answer.take(waiting())
    with pytest.raises(RefusedError, match="did not load") as refused:
        answer.take(event({"error": {"message": "It did not load.", "code": "bad_model"}}))
    assert (refused.value.code, answer.cut) == ("bad_model", None)


TEXTS = st.lists(st.sampled_from(["a", "b ", "\n", "\n\n", "```", "```\n", "~~~\n", "- x\n", "  "]), max_size=40)


@given(TEXTS, st.integers(1, 5))
def test_markdown_is_cut_the_same_however_it_comes(parts: list[str], step: int) -> None:
    text = "".join(parts)
    at_once, bit_by_bit = BlockSplitter(), BlockSplitter()
    blocks = at_once.feed(text)
    others = [block for start in range(0, len(text), step) for block in bit_by_bit.feed(text[start : start + step])]
    assert (others, bit_by_bit.tail) == (blocks, at_once.tail)
    assert "".join("".join([*blocks, at_once.tail]).split()) == "".join(text.split())


def test_code_with_blank_lines_stays_together() -> None:
    splitter = BlockSplitter()
    assert splitter.feed("Look:\n\n```py\na = 1\n\nb = 2\n```\n\nThere.") == ["Look:\n", "```py\na = 1\n\nb = 2\n```\n"]
    assert splitter.tail == "There."


def rendered(renderable: Any, height: int = 25) -> str:
    console = Console(width=60, height=height, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_links_show_where_they_lead() -> None:
    text = rendered(markdown("[good](https://evil.example/x)"))
    assert "https://evil.example/x" in text
    assert "\x1b]8" not in text


def test_a_model_cannot_control_the_terminal() -> None:
    assert "\x1b[2J" not in rendered(markdown("clear: \x1b[2J"))


def test_only_the_last_rows_of_a_long_block_are_drawn() -> None:
    text = rendered(LastRows("```\n" + "\n".join(f"line {n}" for n in range(100)) + "\n```"), height=10)
    assert "line 99" in text
    assert "line 50" not in text


class Person:
    """Types given lines, then leaves."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)

    def __call__(self, prompt: str) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The bodies that a session sends; every answer is "ok", but a question with "fail" is cut."""
    bodies: list[dict[str, Any]] = []

    def show(place: ServerPlace, body: dict[str, Any], answer: Answer) -> None:
        bodies.append(body)
        question = body["messages"][-1]["content"]
        if "interrupt" in question:
            answer.text = "half"
            raise KeyboardInterrupt
        answer.text, answer.done = "ok", True
        answer.cut = "the engine died" if "fail" in question else None

    async def models(place: ServerPlace) -> list[str]:
        return ["demo", "other"]

    monkeypatch.setattr("supervisor.cli.chat_session.show_answer", show)
    monkeypatch.setattr("supervisor.cli.chat_session._models", models)
    return bodies


def typed(*lines: str) -> None:
    ChatSession(ServerPlace("http://127.0.0.1:1"), Conversation(), Person(lines)).run()


def questions(bodies: list[dict[str, Any]]) -> list[list[str]]:
    return [[message["content"] for message in body["messages"]] for body in bodies]


def test_lines_and_blocks(asked: list[dict[str, Any]]) -> None:
    typed("one\\", "two", '"""first', "", 'last"""', "   ", '"""alone"""')
    assert [said[-1] for said in questions(asked)] == ["one\ntwo", "first\n\nlast", "alone"]


def test_commands(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    typed(
        "/help",
        "/model",
        "/model other",
        "/model othr",
        "/system Be brief.",
        "Hi",
        "/clear",
        "/retry",
        "/sytem x",
        "/quit",
        "never",
    )
    assert questions(asked) == [["Be brief.", "Hi"]]
    assert asked[0]["model"] == "other"
    said = capsys.readouterr().out
    for words in (
        "/retry",
        "Models: demo, other",
        "did you mean `other`?",
        "Nothing was asked",
        "did you mean `/system`?",
    ):
        assert words in said


def test_a_cut_answer_can_be_asked_again(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    typed("please fail", "/retry", "next")
    assert questions(asked) == [["please fail"], ["please fail"], ["next"]]
    captured = capsys.readouterr()
    assert "cut off here: the engine died" in captured.err
    assert "/retry asks again" in captured.out


def test_a_stopped_answer_stays_in_the_conversation(asked: list[dict[str, Any]]) -> None:
    typed("interrupt me", "go on")
    assert questions(asked)[-1] == ["interrupt me", "half", "go on"]
