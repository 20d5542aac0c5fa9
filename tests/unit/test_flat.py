"""The flat dialect: which requests speak it, what they mean, what they are answered; and reading chat answers in general."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import MalformedRequestError
from supervisor.gateway.chat_answers import ChatStream, read_answer
from supervisor.gateway.costs import cost_number
from supervisor.gateway.flat import flat_answer, is_flat, read_request
from supervisor.gateway.losses import IncompleteAnswerError
from supervisor.storage.records import TokenSource, TokenUsage

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("document", "header", "expected"),
    [
        (HELLO, None, False),
        (HELLO, "openai", False),
        (HELLO, "flat", True),
        (HELLO, " Flat ", True),
        ({**HELLO, "project_id": "p"}, None, True),
        ({**HELLO, "timeout": 30}, None, True),
        ({**HELLO, "project_id": None}, None, True),
        ({**HELLO, "metadata": {"project_id": "p"}}, None, False),
    ],
)
def test_who_speaks_it(document: dict[str, Any], header: str | None, expected: bool) -> None:
    assert is_flat(document, header) is expected


def test_what_a_request_means() -> None:
    asked = read_request({**HELLO, "project_id": "p", "timeout": 2.5, "model": "opus", "top_k": 3})
    assert asked.timeout_seconds == 2.5
    assert asked.chat == {**HELLO, "model": "opus", "top_k": 3}
    for absent in ({}, {"model": None}, {"model": ""}):
        asked = read_request({**HELLO, **absent})
        assert (asked.chat["model"], asked.timeout_seconds) == ("auto", None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("timeout", value) for value in (0, 0.9, 300.5, "30", True, -1)),
        ("stream", True),
        ("messages", []),
        ("model", 7),
        ("temperature", 3),
        ("n", 2),
    ],
)
def test_the_field_at_fault_is_named(field: str, value: Any) -> None:
    with pytest.raises(MalformedRequestError) as refusal:
        read_request({**HELLO, field: value})
    assert refusal.value.param == field


def test_an_answer_has_exactly_the_fields_of_the_contract() -> None:
    body = {
        "id": "chatcmpl-1",
        "model": "demo",
        "choices": [{"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    }
    answer = read_answer(json.dumps(body).encode())
    assert answer.usage == TokenUsage(9, 2, 4, TokenSource.ENGINE)
    assert flat_answer(answer, cost_number(1_250), "p") == {
        "id": "chatcmpl-1",
        "model": "demo",
        "content": "Hi.",
        "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
        "cost": 0.00125,
        "project_id": "p",
    }
    assert flat_answer(answer, cost_number(None), "p")["cost"] is None


def test_an_answer_without_words_is_one_all_the_same() -> None:
    called = read_answer(b'{"choices":[{"message":{"content":null,"tool_calls":[{}]}}]}')
    assert (called.content, called.usage) == ("", TokenUsage())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[7]}', b'{"choices":[{"text":"a"}]}']
)
def test_what_is_no_chat_answer_is_not_made_one(body: bytes) -> None:
    with pytest.raises(IncompleteAnswerError):
        read_answer(body)


def test_a_stream_is_read_as_it_comes() -> None:
    reader = ChatStream()
    assert (
        reader.feed(b': ping\n\ndata: {"model":"demo","choices":[{"delta":{"role":"assistant","content":null}}]}\n\n')
        == []
    )
    assert reader.feed(
        b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata:{"choices":[{"delta":{"content":"b"}}]}\r\n\r\n'
    ) == [
        "a",
        "b",
    ]
    assert (
        reader.feed(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n') == []
    )
    assert (reader.model, reader.usage.total_tokens, reader.error) == ("demo", 5, None)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b'data: {"error":{"message":"out of memory"}}\n\n', "out of memory"),
        (b'data: {"error":"oops"}\n\n', "oops"),
        (b'data: {"error":{"code":7}}\n\n', "The engine failed without a word."),
    ],
)
def test_an_error_in_a_stream_is_kept(event: bytes, words: str) -> None:
    reader = ChatStream()
    assert reader.feed(event) == []
    assert reader.error == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["choices", "delta", "content", "usage", "error"]), inner)
    ),
)


@given(event=JSON)
def test_no_event_can_break_the_reader(event: Any) -> None:
    pieces = ChatStream().feed(f"data: {json.dumps(event)}\n\n".encode())
    assert all(pieces)
    assert all(type(piece) is str for piece in pieces)
