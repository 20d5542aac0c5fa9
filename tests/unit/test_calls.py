"""Requests that break the contract are refused with the name of the field; everything else is left alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.errors import MalformedRequestError
from supervisor.gateway.calls import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Call, check

USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "anything": 1}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.01),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 1e400),
        ("top_p", 1.5),
        ("top_p", -1),
        ("top_k", 0),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", [1]),
        ("max_completion_tokens", 0),
        ("repeat_penalty", -0.5),
        ("repeat_penalty", 1e400),
        ("n", 0),
        ("n", 129),
        ("n", "2"),
        ("n_cmpl", 1.5),
        ("stream", "yes"),
        ("stream", 1),
        ("model", 7),
        ("model", ["a"]),
        ("messages", None),
        ("messages", []),
        ("messages", "hello"),
        ("messages[0]", ["hello"]),
        ("messages[1].role", [USER, {"role": "robot"}]),
        ("messages[0].role", [{"content": "x"}]),
        ("messages[0].role", [{"role": {"name": "user"}}]),
        ("messages[0].name", [{**USER, "name": 5}]),
        ("messages[0].tool_calls", [{"role": "assistant", "tool_calls": "x"}]),
        ("messages[0].tool_calls[0]", [{"role": "assistant", "tool_calls": [5]}]),
        ("messages[0].tool_calls[0].type", [{"role": "assistant", "tool_calls": [{}]}]),
        ("messages[0].tool_calls[1].function", [{"role": "assistant", "tool_calls": [TOOL, {"type": "function"}]}]),
        ("messages[0].tool_calls[0].function.name", [{"role": "assistant", "tool_calls": [{**TOOL, "function": {}}]}]),
        ("tools", "x"),
        ("tools", {}),
        ("tools[0]", [None]),
        ("tools[0].type", [{}]),
        ("tools[1].function", [TOOL, {"type": "function", "function": "f"}]),
        ("tools[0].function.name", [{"type": "function", "function": {"name": 5}}]),
    ],
)
def test_the_field_at_fault_is_named(field: str, value: Any) -> None:
    name = field.partition("[")[0]
    with pytest.raises(MalformedRequestError) as refusal:
        check(CHAT, {"messages": [USER], name: value})
    assert refusal.value.param == field
    assert refusal.value.message.startswith(f"`{field}` must be ")


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(MalformedRequestError, match=r"not \"robot\"\.$"):
        check(CHAT, {"messages": [{"role": "robot"}]})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0, "top_p": 0, "top_k": 1, "max_tokens": 1, "repeat_penalty": 0},
        {"temperature": 2.0, "top_p": 1.0, "top_k": 40.0, "repeat_penalty": 10**400},
        {"temperature": None, "max_tokens": None, "stream": None, "model": None},
        {"tools": [TOOL, {"type": "custom"}], "lora": [], "min_p": -3, "unknown": {"deep": [1]}},
        {"messages": [{"role": "tool", "content": [{"type": "text"}], "tool_call_id": "1"}, {"role": "developer"}]},
        {"messages": [{"role": "assistant", "content": None, "name": None, "tool_calls": [TOOL]}], "tools": None},
        {"messages": [{"role": "assistant", "tool_calls": None}], "tools": []},
    ],
)
def test_what_the_contract_does_not_forbid_is_the_engines_business(fields: dict[str, Any]) -> None:
    check(CHAT, {"messages": [USER], **fields})


def test_messages_are_for_chats_and_sampling_is_not_for_embeddings() -> None:
    check(COMPLETIONS, {"prompt": "a"})
    check(EMBEDDINGS, {"input": ["a"], "temperature": "whatever"})


def call(body: bytes) -> Call:
    """A chat with that body."""
    return Call(CHAT, body, json.loads(body), {})


def test_bytes_are_sent_on_as_they_came() -> None:
    body = b'{ "model" : "demo",\n "seed": 1E2, "x": "\\u00e9", "stream": true }'
    assert call(body).body_for(None) is body
    assert call(body).body_for("demo") is body
    assert call(b"{}").body_for("demo") == b"{}"
    assert call(body).wants_stream
    assert call(b'{"model": ""}').model is None


def test_only_the_name_of_the_model_is_changed_for_an_engine_that_insists() -> None:
    body = (
        '{"messages": [{"role": "user", "content": "Grüße ☃"}], "model": "mine", "seed": 12345678901234567890}'.encode()
    )
    sent = json.loads(call(body).body_for("Qwen/Qwen3-8B"))
    assert sent == {**json.loads(body), "model": "Qwen/Qwen3-8B"}
    assert list(sent) == list(json.loads(body))


@pytest.mark.parametrize("limit", [-1, 0, -(10**30), True, 1.5, "5", None])
def test_only_a_number_of_tokens_bounds_what_is_held_back(limit: object) -> None:
    document = {"input": "x", "max_tokens": limit}
    assert Call(EMBEDDINGS, b"", document, {}).max_tokens in (None, 1)


@pytest.mark.parametrize(
    ("path", "document", "most"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_completion_tokens": 5, "n": 3}, 15),
        (CHAT, {"max_tokens": 5, "n_predict": 7}, 7),
        (COMPLETIONS, {"n_predict": 5}, 5),
        (COMPLETIONS, {"max_tokens": 5, "n_predict": -1}, None),
        (RESPONSES, {"max_output_tokens": 5}, 5),
        (CHAT, {"max_output_tokens": 5}, None),
    ],
)
def test_every_name_of_the_longest_answer_is_known_where_engines_know_it(
    path: str, document: dict[str, Any], most: int | None
) -> None:
    assert Call(path, b"", document, {}).max_tokens == most


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
def test_where_there_is_room_for_one_choice_only_more_are_refused(path: str) -> None:
    for one in ({}, {"n": 1}, {"n": None}, {"n_cmpl": 1.0}):
        check(path, {"messages": [USER], **one})
    for field in ("n", "n_cmpl"):
        with pytest.raises(MalformedRequestError, match="must be 1 on this route") as refusal:
            check(path, {"messages": [USER], field: 2})
        assert refusal.value.param == field


@pytest.mark.parametrize(
    ("path", "document", "answers"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": 3.0, "prompt": ["a", "b"]}, 3),
        (CHAT, {"n": 3, "n_cmpl": 2}, 2),
        (CHAT, {"n": True, "n_cmpl": None}, 1),
        (EMBEDDINGS, {"n": 1e400}, 1),
        (COMPLETIONS, {"prompt": "abc"}, 1),
        (COMPLETIONS, {"prompt": []}, 1),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": [1, "two", 3]}, 1),
        (COMPLETIONS, {"prompt": ["a", "b"]}, 2),
        (COMPLETIONS, {"prompt": [[1, 2], "b", "c"], "n": 4}, 12),
    ],
)
def test_each_choice_of_each_prompt_is_an_answer(path: str, document: dict[str, Any], answers: int) -> None:
    assert Call(path, b"", document, {}).answers == answers
    assert Call(path, b"", {**document, "max_tokens": 5}, {}).max_tokens == 5 * answers
